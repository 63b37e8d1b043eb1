// Two-dimensional convolution and its two gradients, images NHWC, weights (K, R, S, C).
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// The sizes of one convolution: N images of H x W with C channels, K filters of R x S.
/// Ho = (H + 2 * padding - R) / stride + 1, likewise Wo (rounded down, zero padding on all sides).
struct Conv2dShape {
  std::int64_t batch;          // N
  std::int64_t height;         // H
  std::int64_t width;          // W
  std::int64_t channels;       // C
  std::int64_t filters;        // K
  std::int64_t filter_height;  // R
  std::int64_t filter_width;   // S
  std::int64_t stride = 1;
  std::int64_t padding = 0;

  std::int64_t out_height() const { return (height + 2 * padding - filter_height) / stride + 1; }
  std::int64_t out_width() const { return (width + 2 * padding - filter_width) / stride + 1; }
  std::int64_t x_elements() const { return batch * height * width * channels; }
  std::int64_t y_elements() const { return batch * out_height() * out_width() * filters; }
  std::int64_t weight_elements() const { return filters * filter_height * filter_width * channels; }
  /// Multiplications and additions of one pass, each counted as one.
  double flops() const {
    return 2.0 * static_cast<double>(batch * out_height() * out_width()) *
           static_cast<double>(weight_elements());
  }
  bool operator==(const Conv2dShape&) const = default;
};

/// How conv2d cuts y, seen as (N*Ho*Wo, K), for its statistics: `count` chunks of `rows` rows, the
/// last one shorter if need be. Fixed by shape and device.
struct Conv2dChunks {
  std::int64_t rows, count;
};
Conv2dChunks conv2d_statistics_chunks(const Conv2dShape& shape, Device device);

/// Which hand-written CUDA kernel runs a pass. kAuto: wgmma where it can run, else mma.
enum class Conv2dAlgorithm : std::uint8_t {
  kAuto,
  kMma,    // any shape and dtype: mma.sync for bf16, fused multiply-adds for f32
  kWgmma,  // Hopper only: bf16; channels (forward), filters (data gradient) or both (weight
           // gradient) multiples of 64
};

/// Of the GPUs that the tiles were chosen for: H100 and H200.
inline constexpr std::int64_t kConv2dMultiprocessors = 132;

/// What is done to the sums before they are stored: [relu](sum + bias[k] [+ residual]).
struct Conv2dEpilogue {
  const void* bias = nullptr;      // (K), f64 for f64, else f32; null: none
  const void* residual = nullptr;  // (N,Ho,Wo,K) of y's dtype; null: none
  bool relu = false;               // a NaN stays a NaN

  bool any() const { return bias != nullptr || residual != nullptr || relu; }
};

/// y[n,p,q,k] = sum_{r,s,c} x[n, p*stride - padding + r, q*stride - padding + s, c] * w[k,r,s,c],
/// x being 0 outside the image; then the epilogue.
///
/// With `statistics`: for chunk i of y's rows (conv2d_statistics_chunks) and filter k,
///   statistics[i, 0, k] = mean of y over the chunk
///   statistics[i, 1, k] = sum of (y - that mean)^2 over the chunk
/// of y as it is stored, rounding included: what batch_norm needs, without reading y again.
///
/// Shapes    x (N,H,W,C), weight (K,R,S,C), y (N,Ho,Wo,K), statistics (chunks, 2, K) of f64 for
///           f64, else f32; all contiguous and none overlapping.
/// Numerics  sums in f32 (f64 for f64), order fixed by the shape: same bytes with any number of
///           threads, run to run. f32 weights of a bf16 convolution are rounded to bf16 first
///           (their gradient is not). On CUDA f32 is true f32 unless context.allow_tf32.
/// Cost      flops() operations.
/// Errors    Error if a size is below 1 (batch may be 0), the filter is larger than the padded
///           image, a pointer is null, or the dtypes are not f64, f32, bf16 (weights of a bf16
///           convolution may be f32), or both an epilogue and statistics are asked for: one is for
///           inference, the other for training.
struct Conv2dArgs {
  void* y;
  const void* x;
  const void* weight;
  Conv2dShape shape;
  DType dtype;         // of x and y
  DType weight_dtype;  // dtype, or f32 when dtype is bf16
  Conv2dEpilogue epilogue = {};
  void* statistics = nullptr;                          // null: not wanted
  Conv2dAlgorithm algorithm = Conv2dAlgorithm::kAuto;  // of CUDA; the CPU has its own choice
  // CUDA takes wide tiles where they make a block for each. The bits of y do not depend on it.
  std::int64_t multiprocessors = kConv2dMultiprocessors;
};

/// dx[n,h,w,c] = sum_{k,r,s} dy[n,p,q,k] * w[k,r,s,c] over the (r, s, p, q) with
/// p*stride - padding + r = h and q*stride - padding + s = w. The rest is as for Conv2dArgs.
struct Conv2dBackwardDataArgs {
  void* dx;
  const void* dy;
  const void* weight;
  Conv2dShape shape;
  DType dtype;         // of dx and dy
  DType weight_dtype;  // dtype, or f32 when dtype is bf16
  Conv2dAlgorithm algorithm = Conv2dAlgorithm::kAuto;
  std::int64_t multiprocessors = kConv2dMultiprocessors;
};

/// dweight[k,r,s,c] = sum_{n,p,q} dy[n,p,q,k] * x[n, p*stride - padding + r, q*stride - padding +
/// s, c]. Overwrites dweight (zero for an empty batch). The batch is summed in slices whose bounds
/// depend on the shape alone. The rest is as for Conv2dArgs.
struct Conv2dBackwardWeightArgs {
  void* dweight;
  const void* x;
  const void* dy;
  Conv2dShape shape;
  DType dtype;         // of x and dy
  DType weight_dtype;  // of dweight: dtype, or f32 when dtype is bf16
  Conv2dAlgorithm algorithm = Conv2dAlgorithm::kAuto;
};

void conv2d_cpu(const Context& context, const Conv2dArgs& args);
void conv2d_backward_data_cpu(const Context& context, const Conv2dBackwardDataArgs& args);
void conv2d_backward_weight_cpu(const Context& context, const Conv2dBackwardWeightArgs& args);
extern CudaOp<Conv2dArgs> conv2d_cuda;
extern CudaOp<Conv2dBackwardDataArgs> conv2d_backward_data_cuda;
extern CudaOp<Conv2dBackwardWeightArgs> conv2d_backward_weight_cuda;

inline Conv2dChunks conv2d_statistics_chunks(const Conv2dShape& shape, Device device) {
  const std::int64_t image = shape.out_height() * shape.out_width(), rows = shape.batch * image;
  // CUDA: a tile of the kernels. CPU: whole images, at most 256 chunks.
  std::int64_t chunk = 128;
  if (device == Device::kCpu)
    chunk = image * (shape.batch > 256 ? (shape.batch + 255) / 256 : std::int64_t{1});
  return {chunk, (rows + chunk - 1) / chunk};
}

inline void check_conv2d(const char* op, const Conv2dShape& s, DType dtype, DType weight_dtype) {
  RETORT_CHECK(s.batch >= 0, "[", op, "] expected batch >= 0, got ", s.batch);
  RETORT_CHECK(s.height >= 1 && s.width >= 1 && s.channels >= 1 && s.filters >= 1, "[", op,
               "] expected height, width, channels and filters >= 1, got ", s.height, ", ", s.width,
               ", ", s.channels, ", ", s.filters);
  RETORT_CHECK(s.filter_height >= 1 && s.filter_width >= 1, "[", op,
               "] expected a filter of at least 1 x 1, got ", s.filter_height, " x ",
               s.filter_width);
  RETORT_CHECK(s.stride >= 1 && s.padding >= 0, "[", op,
               "] expected stride >= 1 and padding >= 0, got ", s.stride, " and ", s.padding);
  RETORT_CHECK(
      s.height + 2 * s.padding >= s.filter_height && s.width + 2 * s.padding >= s.filter_width, "[",
      op, "] expected a filter no larger than the padded image, got ", s.filter_height, " x ",
      s.filter_width, " on ", s.height, " x ", s.width, " with padding ", s.padding);
  RETORT_CHECK(dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kBF16, "[", op,
               "] expected f64, f32 or bf16, got ", name_of(dtype));
  RETORT_CHECK(weight_dtype == dtype || (dtype == DType::kBF16 && weight_dtype == DType::kF32), "[",
               op, "] expected weights of ", name_of(dtype), ", got ", name_of(weight_dtype));
}

inline void conv2d(const Context& context, const Conv2dArgs& args) {
  check_conv2d("conv2d", args.shape, args.dtype, args.weight_dtype);
  if (args.shape.batch == 0) return;
  RETORT_CHECK(args.y && args.x && args.weight, "[conv2d] expected non-null y, x and weight");
  RETORT_CHECK(!args.statistics || !args.epilogue.any(),
               "[conv2d] expected statistics or an epilogue, got both");
  dispatch("conv2d", context, args, conv2d_cpu, conv2d_cuda);
}

inline void conv2d_backward_data(const Context& context, const Conv2dBackwardDataArgs& args) {
  check_conv2d("conv2d_backward_data", args.shape, args.dtype, args.weight_dtype);
  if (args.shape.batch == 0) return;
  RETORT_CHECK(args.dx && args.dy && args.weight,
               "[conv2d_backward_data] expected non-null dx, dy and weight");
  dispatch("conv2d_backward_data", context, args, conv2d_backward_data_cpu,
           conv2d_backward_data_cuda);
}

inline void conv2d_backward_weight(const Context& context, const Conv2dBackwardWeightArgs& args) {
  check_conv2d("conv2d_backward_weight", args.shape, args.dtype, args.weight_dtype);
  RETORT_CHECK(args.dweight && (args.shape.batch == 0 || (args.x && args.dy)),
               "[conv2d_backward_weight] expected non-null dweight, x and dy");
  dispatch("conv2d_backward_weight", context, args, conv2d_backward_weight_cpu,
           conv2d_backward_weight_cuda);
}

}  // namespace retort::kernels
