// What computes a convolution on the CPU: Winograd, oneDNN, or im2col and a product. Internal to
// conv2d_cpu*.cpp, which choose by shape alone, never by timing: another algorithm would give
// other bits.
//
// Note [Slices of the batch]
// Each pass over images is cut into slices of whole images. Their bounds depend on the shape alone,
// and each slice runs on one thread; a weight gradient adds partial sums in the order of the
// slices. So the bytes do not depend on the number of threads. (Left to itself oneDNN splits the
// sum of the weight gradient by threads.)
#pragma once
#include <cstddef>
#include <functional>

#include "kernels/common/thread_space.h"
#include "kernels/conv2d/conv2d.h"

namespace retort::kernels::conv {

enum class Pass : int { kForward, kBackwardData, kBackwardWeight };

/// Called by the thread that made them when the sums of images [begin, end) are complete and still
/// in its cache: for an epilogue, statistics, or rounding to bf16. `sums` are those of image
/// `begin` on.
template <class T>
using ImagesDone = std::function<void(std::int64_t begin, std::int64_t end, T* sums)>;

/// Images that belong together: slices are multiples of them, so that a chunk of statistics is
/// never cut.
inline std::int64_t images_together(const Conv2dShape& s) {
  return conv2d_statistics_chunks(s, Device::kCpu).rows / (s.out_height() * s.out_width());
}

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
inline std::size_t round_up(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

/// Hands out a block of scratch in pieces.
class Pieces {
 public:
  explicit Pieces(std::byte* block) : next_(block) {}
  template <class T>
  T* take(std::size_t count) {
    T* const piece = reinterpret_cast<T*>(next_);
    next_ += round_up(count * sizeof(T));
    return piece;
  }

 private:
  std::byte* next_;
};

/// sum := parts[0] + parts[1] + ... in this order; parts are `stride` elements apart.
template <class T>
void add_slices(T* sum, const T* parts, std::size_t stride, std::int64_t slices, std::int64_t n);

// ---- im2col and an Eigen product: any shape, float and double ---------------------------------

template <class T>
std::size_t columns_workspace(Pass pass, const Conv2dShape& shape);
/// y from x (kForward) or dx from dy (kBackwardData).
template <class T>
void columns_images(Pass pass, const Conv2dShape& shape, T* out, const T* in, const T* weight,
                    std::byte* scratch, const ImagesDone<T>& done);
template <class T>
void columns_weight(const Conv2dShape& shape, T* dweight, const T* x, const T* dy,
                    std::byte* scratch);

// ---- oneDNN, where the build has it ------------------------------------------------------------

/// dtype is that of the images, f32 or bf16. False without oneDNN, if it cannot run this shape in
/// slices, or for bf16 on a processor without bf16 products.
bool onednn_fits(Pass pass, const Conv2dShape& shape, DType dtype);
std::size_t onednn_workspace(Pass pass, const Conv2dShape& shape, DType dtype);
/// A bf16 result is only given to `done`, which must store it.
void onednn_images(Pass pass, const Conv2dShape& shape, void* out, const void* in, DType dtype,
                   const float* weight, std::byte* scratch, const ImagesDone<float>& done);
void onednn_weight(const Conv2dShape& shape, float* dweight, const void* x, const void* dy,
                   DType dtype, std::byte* scratch);

// ---- Winograd: 3x3 at stride 1 ------------------------------------------------------------------
// 36 products where the definition has 144:
//
//   Y = A^T [(G g G^T) . (B^T d B)] A      for a 6x6 tile d and a 3x3 filter g, summed over
//   channels
//
// gives 4x4 outputs. The interpolation points 0, +-5/8, +-3/2 and infinity keep the rounding error
// at a few times that of the direct sum. dweight is F(3x3, 4x4): the same transform of x, and 4x4
// tiles of dy as filters.
// Source: Lavin, Gray 2016, arXiv:1509.09308, section 4; Barabasz et al. 2020, arXiv:1803.10986
// (points).

/// True for 3x3 filters at stride 1 with padding <= 2, channels and filters in multiples of 16, and
/// enough pixels to pay for transforming the filters.
bool winograd_fits(const Conv2dShape& shape);
std::size_t winograd_workspace(Pass pass, const Conv2dShape& shape);
/// dtype is that of the images, f32 or bf16. A bf16 result is only given to `done`, which must
/// store it.
void winograd_images(Pass pass, const Conv2dShape& shape, void* out, const void* in, DType dtype,
                     const float* weight, std::byte* scratch, const ImagesDone<float>& done);
void winograd_weight(const Conv2dShape& shape, float* dweight, const void* x, const void* dy,
                     DType dtype, std::byte* scratch);

// ---- what follows the sums ----------------------------------------------------------------------

/// The epilogue and statistics of `args` for the images [begin, end), and for bf16 the rounding of
/// `sums` into y. T is float, or double for f64.
template <class T>
void finish_images(const Conv2dArgs& args, std::int64_t begin, std::int64_t end, T* sums);

}  // namespace retort::kernels::conv
