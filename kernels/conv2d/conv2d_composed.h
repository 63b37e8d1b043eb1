// Convolution as its contract says it, in double, one element at a time. Operands are anything with
// an operator[] that gives a double (round them to the type that is multiplied first).
#pragma once
#include "kernels/common/composed.h"
#include "kernels/conv2d/conv2d.h"

namespace retort::kernels {

/// Index of an element in a contiguous tensor of four dimensions, and back.
struct Conv2dPlace {
  std::int64_t a, b, c, d;  // n, h, w, channel; or k, r, s, channel
};
inline std::size_t conv2d_index(std::int64_t d1, std::int64_t d2, std::int64_t d3, Conv2dPlace at) {
  return static_cast<std::size_t>(((at.a * d1 + at.b) * d2 + at.c) * d3 + at.d);
}
inline Conv2dPlace conv2d_place(std::int64_t d1, std::int64_t d2, std::int64_t d3, std::size_t i) {
  const auto at = static_cast<std::int64_t>(i);
  return {at / (d1 * d2 * d3), at / (d2 * d3) % d1, at / d3 % d2, at % d3};
}
inline std::size_t conv2d_x_index(const Conv2dShape& s, Conv2dPlace at) {
  return conv2d_index(s.height, s.width, s.channels, at);
}
inline std::size_t conv2d_y_index(const Conv2dShape& s, Conv2dPlace at) {
  return conv2d_index(s.out_height(), s.out_width(), s.filters, at);
}
inline std::size_t conv2d_weight_index(const Conv2dShape& s, Conv2dPlace at) {
  return conv2d_index(s.filter_height, s.filter_width, s.channels, at);
}

/// Element i of y.
template <class X, class W>
ProductSum conv2d_composed(const Conv2dShape& s, const X& x, const W& weight, std::size_t i) {
  const auto [n, p, q, k] = conv2d_place(s.out_height(), s.out_width(), s.filters, i);
  ProductSum sum;
  for (std::int64_t r = 0; r < s.filter_height; ++r)
    for (std::int64_t t = 0; t < s.filter_width; ++t) {
      const std::int64_t h = p * s.stride - s.padding + r, w = q * s.stride - s.padding + t;
      if (h < 0 || h >= s.height || w < 0 || w >= s.width) continue;
      for (std::int64_t c = 0; c < s.channels; ++c)
        sum.add(x[conv2d_x_index(s, {n, h, w, c})] * weight[conv2d_weight_index(s, {k, r, t, c})]);
    }
  return sum;
}

/// Element i of dx: the (r, t, p, q) that reach it.
template <class DY, class W>
ProductSum conv2d_backward_data_composed(const Conv2dShape& s, const DY& dy, const W& weight,
                                         std::size_t i) {
  const auto [n, h, w, c] = conv2d_place(s.height, s.width, s.channels, i);
  ProductSum sum;
  for (std::int64_t r = 0; r < s.filter_height; ++r)
    for (std::int64_t t = 0; t < s.filter_width; ++t) {
      const std::int64_t down = h + s.padding - r, right = w + s.padding - t;
      if (down < 0 || right < 0 || down % s.stride != 0 || right % s.stride != 0) continue;
      const std::int64_t p = down / s.stride, q = right / s.stride;
      if (p >= s.out_height() || q >= s.out_width()) continue;
      for (std::int64_t k = 0; k < s.filters; ++k)
        sum.add(dy[conv2d_y_index(s, {n, p, q, k})] * weight[conv2d_weight_index(s, {k, r, t, c})]);
    }
  return sum;
}

/// Element i of dweight.
template <class X, class DY>
ProductSum conv2d_backward_weight_composed(const Conv2dShape& s, const X& x, const DY& dy,
                                           std::size_t i) {
  const auto [k, r, t, c] = conv2d_place(s.filter_height, s.filter_width, s.channels, i);
  ProductSum sum;
  for (std::int64_t n = 0; n < s.batch; ++n)
    for (std::int64_t p = 0; p < s.out_height(); ++p)
      for (std::int64_t q = 0; q < s.out_width(); ++q) {
        const std::int64_t h = p * s.stride - s.padding + r, w = q * s.stride - s.padding + t;
        if (h < 0 || h >= s.height || w < 0 || w >= s.width) continue;
        sum.add(x[conv2d_x_index(s, {n, h, w, c})] * dy[conv2d_y_index(s, {n, p, q, k})]);
      }
  return sum;
}

/// [relu](y + bias + residual).
inline ProductSum conv2d_epilogue_composed(ProductSum y, double bias, double residual, bool relu) {
  y.add(bias);
  y.add(residual);
  if (relu && y.value < 0) y.value = 0;
  return y;
}

}  // namespace retort::kernels
