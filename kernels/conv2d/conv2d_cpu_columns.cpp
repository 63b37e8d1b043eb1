// Convolution as im2col and an Eigen product: f64, and f32 where nothing better fits.
#include <Eigen/Core>
#include <algorithm>

#include "kernels/common/parallel.h"
#include "kernels/conv2d/conv2d_providers.h"

namespace retort::kernels::conv {
namespace {

template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using ConstMap = Eigen::Map<const Matrix<T>>;
template <class T>
using Map = Eigen::Map<Matrix<T>>;

// Calls f(row of columns, r * S + s, offset of the pixel or -1) for one image.
template <class F>
void for_each_tap(const Conv2dShape& s, F&& f) {
  const std::int64_t out_h = s.out_height(), out_w = s.out_width();
  for (std::int64_t p = 0; p < out_h; ++p)
    for (std::int64_t q = 0; q < out_w; ++q)
      for (std::int64_t r = 0; r < s.filter_height; ++r)
        for (std::int64_t t = 0; t < s.filter_width; ++t) {
          const std::int64_t h = p * s.stride - s.padding + r, w = q * s.stride - s.padding + t;
          const bool inside = h >= 0 && h < s.height && w >= 0 && w < s.width;
          f(p * out_w + q, r * s.filter_width + t,
            inside ? (h * s.width + w) * s.channels : std::int64_t{-1});
        }
}

template <class T>
void image_to_columns(const Conv2dShape& s, const T* image, T* columns) {
  const std::int64_t taps = s.filter_height * s.filter_width;
  for_each_tap(s, [&](std::int64_t row, std::int64_t tap, std::int64_t pixel) {
    T* const to = columns + (row * taps + tap) * s.channels;
    if (pixel < 0)
      std::fill_n(to, s.channels, T(0));
    else
      std::copy_n(image + pixel, s.channels, to);
  });
}

template <class T>
void columns_to_image(const Conv2dShape& s, const T* columns, T* image) {
  const std::int64_t taps = s.filter_height * s.filter_width;
  std::fill_n(image, s.height * s.width * s.channels, T(0));
  for_each_tap(s, [&](std::int64_t row, std::int64_t tap, std::int64_t pixel) {
    if (pixel < 0) return;
    const T* const from = columns + (row * taps + tap) * s.channels;
    for (std::int64_t c = 0; c < s.channels; ++c) image[pixel + c] += from[c];
  });
}

template <class T>
struct Columns {
  explicit Columns(const Conv2dShape& s)
      : rows(s.out_height() * s.out_width()),
        depth(s.filter_height * s.filter_width * s.channels),
        image(s.height * s.width * s.channels),
        needed(s.filter_height != 1 || s.filter_width != 1 || s.stride != 1 || s.padding != 0) {
    const std::int64_t together = images_together(s);
    per_slice = ceil_div(ceil_div(s.batch, 16), together) * together;
    slices = ceil_div(s.batch, per_slice);
  }
  std::size_t buffer() const {  // elements of one slice
    return needed ? round_up(static_cast<std::size_t>(rows * depth) * sizeof(T)) / sizeof(T) : 0;
  }

  std::int64_t rows, depth, image;
  bool needed;  // a 1x1 filter at stride 1 reads the image itself
  std::int64_t slices, per_slice;
};

std::size_t padded(std::int64_t elements, std::size_t size) {
  return round_up(static_cast<std::size_t>(elements) * size) / size;
}

}  // namespace

template <class T>
std::size_t columns_workspace(Pass pass, const Conv2dShape& shape) {
  const Columns<T> c(shape);
  const auto slices = static_cast<std::size_t>(c.slices);
  std::size_t elements = slices * c.buffer();
  if (pass == Pass::kBackwardWeight)
    elements += slices * padded(shape.weight_elements(), sizeof(T));
  return elements * sizeof(T);
}

template <class T>
void columns_images(Pass pass, const Conv2dShape& shape, T* out, const T* in, const T* weight,
                    std::byte* scratch, const ImagesDone<T>& done) {
  const Columns<T> c(shape);
  T* const buffers = reinterpret_cast<T*>(scratch);
  const ConstMap<T> w(weight, shape.filters, c.depth);
  const std::int64_t y_image = c.rows * shape.filters;
  parallel_for(shape.batch, c.per_slice, [&](std::int64_t begin, std::int64_t end) {
    const OneOpenMpThread one;
    T* const columns = buffers + static_cast<std::size_t>(begin / c.per_slice) * c.buffer();
    for (std::int64_t n = begin; n < end; ++n) {
      if (pass == Pass::kForward) {
        const T* const image = in + n * c.image;
        if (c.needed) image_to_columns(shape, image, columns);
        Map<T>(out + n * y_image, c.rows, shape.filters).noalias() =
            ConstMap<T>(c.needed ? columns : image, c.rows, c.depth) * w.transpose();
      } else {
        T* const image = out + n * c.image;
        Map<T>(c.needed ? columns : image, c.rows, c.depth).noalias() =
            ConstMap<T>(in + n * y_image, c.rows, shape.filters) * w;
        if (c.needed) columns_to_image(shape, columns, image);
      }
    }
    if (done) done(begin, end, out + begin * (pass == Pass::kForward ? y_image : c.image));
  });
}

template <class T>
void columns_weight(const Conv2dShape& shape, T* dweight, const T* x, const T* dy,
                    std::byte* scratch) {
  const Columns<T> c(shape);
  const std::size_t weights = padded(shape.weight_elements(), sizeof(T));
  T* const buffers = reinterpret_cast<T*>(scratch);
  T* const parts = buffers + static_cast<std::size_t>(c.slices) * c.buffer();
  parallel_for(shape.batch, c.per_slice, [&](std::int64_t begin, std::int64_t end) {
    const OneOpenMpThread one;
    const auto slice = static_cast<std::size_t>(begin / c.per_slice);
    T* const columns = buffers + slice * c.buffer();
    Map<T> part(parts + slice * weights, shape.filters, c.depth);
    part.setZero();
    for (std::int64_t n = begin; n < end; ++n) {
      const T* const image = x + n * c.image;
      if (c.needed) image_to_columns(shape, image, columns);
      part.noalias() +=
          ConstMap<T>(dy + n * c.rows * shape.filters, c.rows, shape.filters).transpose() *
          ConstMap<T>(c.needed ? columns : image, c.rows, c.depth);
    }
  });
  add_slices(dweight, parts, weights, c.slices, shape.weight_elements());
}

template <class T>
void add_slices(T* sum, const T* parts, std::size_t stride, std::int64_t slices, std::int64_t n) {
  parallel_for(n, std::int64_t{1} << 14, [=](std::int64_t begin, std::int64_t end) {
    if (sum != parts) std::copy(parts + begin, parts + end, sum + begin);
    for (std::int64_t k = 1; k < slices; ++k) {
      const T* const part = parts + static_cast<std::size_t>(k) * stride;
      for (std::int64_t i = begin; i < end; ++i) sum[i] += part[i];
    }
  });
}

template std::size_t columns_workspace<float>(Pass, const Conv2dShape&);
template std::size_t columns_workspace<double>(Pass, const Conv2dShape&);
template void columns_images<float>(Pass, const Conv2dShape&, float*, const float*, const float*,
                                    std::byte*, const ImagesDone<float>&);
template void columns_images<double>(Pass, const Conv2dShape&, double*, const double*,
                                     const double*, std::byte*, const ImagesDone<double>&);
template void columns_weight<float>(const Conv2dShape&, float*, const float*, const float*,
                                    std::byte*);
template void columns_weight<double>(const Conv2dShape&, double*, const double*, const double*,
                                     std::byte*);
template void add_slices<float>(float*, const float*, std::size_t, std::int64_t, std::int64_t);

}  // namespace retort::kernels::conv
