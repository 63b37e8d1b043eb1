// Winograd convolution over Highway: images.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/conv2d/conv2d_cpu_winograd.cpp"
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/conv2d/conv2d_winograd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels::conv {
namespace HWY_NAMESPACE {

// kRows x (kPanels of 16) of M := V U, summed over `panels` panels of channels.
template <int kRows, int kPanels>
HWY_INLINE void multiply_rows(const float* HWY_RESTRICT v, std::int64_t v_panel,
                              const float* HWY_RESTRICT u, std::int64_t u_panel,
                              std::int64_t panels, float* HWY_RESTRICT m, std::int64_t m_panel) {
  constexpr int kColumns = kPanels * static_cast<int>(kVectors);
  const D tag;
  V sum[kRows][kColumns];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j) sum[i][j] = hn::Zero(tag);
  for (std::int64_t p = 0; p < panels; ++p) {
#pragma GCC unroll 2
    for (std::int64_t c = 0; c < kPanel; ++c) {
      V filter[kColumns];
#pragma GCC unroll 8
      for (int j = 0; j < kColumns; ++j)
        filter[j] =
            hn::Load(tag, u + (j / kVectors) * u_panel + c * kPanel + (j % kVectors) * kLanes);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        const V x = hn::Set(tag, v[i * kPanel + c]);
#pragma GCC unroll 8
        for (int j = 0; j < kColumns; ++j) sum[i][j] = hn::MulAdd(x, filter[j], sum[i][j]);
      }
    }
    v += v_panel;
    u += kPanel * kPanel;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j)
      hn::Store(sum[i][j], tag,
                m + (j / kVectors) * m_panel + i * kPanel + (j % kVectors) * kLanes);
}

HWY_INLINE void multiply(std::int64_t in_c, std::int64_t out_c, std::int64_t count,
                         std::int64_t tiles, const float* v, const float* u, float* m) {
  const std::int64_t in_panels = in_c / kPanel, out_panels = out_c / kPanel;
  for (std::int64_t point = 0; point < kPoints; ++point) {
    std::int64_t p = 0;
    for (; p + kPanels <= out_panels; p += kPanels)
      for (std::int64_t t = 0; t < count; t += kRows)
        multiply_rows<kRows, kPanels>(v + t * kPanel, tiles * kPanel, u + p * in_c * kPanel,
                                      in_c * kPanel, in_panels, m + (p * tiles + t) * kPanel,
                                      tiles * kPanel);
    for (; p < out_panels; ++p)
      for (std::int64_t t = 0; t < count; t += kRows)
        multiply_rows<kRows, 1>(v + t * kPanel, tiles * kPanel, u + p * in_c * kPanel,
                                in_c * kPanel, in_panels, m + (p * tiles + t) * kPanel,
                                tiles * kPanel);
    v += point_stride(in_panels, tiles);
    u += point_stride(out_panels, in_c);
    m += point_stride(out_panels, tiles);
  }
}

// `out` is that of image `origin`.
HWY_INLINE void transform_outputs(const Images& s, const float* m, std::int64_t first,
                                  std::int64_t count, std::int64_t tiles, std::int64_t origin,
                                  float* out) {
  const D tag;
  const std::int64_t panels = s.out_c / kPanel, point = point_stride(panels, tiles);
  for_each_tile(
      s, first, count,
      [&](std::int64_t t, std::int64_t n, std::int64_t row, std::int64_t column) HWY_ATTR {
        float* const y = out + (((n - origin) * s.out_h + row) * s.out_w + column) * s.out_c;
        const std::int64_t down = s.out_w * s.out_c, right = s.out_c;
        const std::int64_t rows = s.out_h - row, columns = s.out_w - column;
        const bool whole = rows >= kOut && columns >= kOut;
        for (std::int64_t p = 0; p < panels; ++p)
          for (std::int64_t k = 0; k < kVectors; ++k) {
            const float* const from = m + (p * tiles + t) * kPanel + k * kLanes;
            float* const to = y + p * kPanel + k * kLanes;
            in_two_dimensions<kIn, kOut>(
                output_values,
                [&](std::int64_t i, std::int64_t j)
                    HWY_ATTR { return hn::Load(tag, from + (i * kIn + j) * point); },
                [&](std::int64_t i, std::int64_t j, V value) HWY_ATTR {
                  if (whole || (i < rows && j < columns))
                    hn::StoreU(value, tag, to + i * down + j * right);
                });
          }
      });
}

// Outputs of the images [begin, end), the first of which `out` points to. `space` holds V and M of
// `tiles` tiles.
template <class T>
HWY_INLINE void images(const Images& s, std::int64_t begin, std::int64_t end, std::int64_t tiles,
                       const T* in, const float* u, float* out, float* space) {
  float* const v = space;
  float* const m = space + kPoints * point_stride(s.in_c / kPanel, tiles);
  for (std::int64_t first = begin * s.tiles(); first < end * s.tiles(); first += tiles) {
    const std::int64_t left = end * s.tiles() - first, count = left < tiles ? left : tiles;
    transform_inputs(s, in, first, count, tiles, v);
    multiply(s.in_c, s.out_c, count, tiles, v, u, m);
    transform_outputs(s, m, first, count, tiles, begin, out);
  }
}
void images_f32(const Images& s, std::int64_t begin, std::int64_t end, std::int64_t tiles,
                const void* in, const float* u, float* out, float* space) {
  images(s, begin, end, tiles, static_cast<const float*>(in), u, out, space);
}
void images_bf16(const Images& s, std::int64_t begin, std::int64_t end, std::int64_t tiles,
                 const void* in, const float* u, float* out, float* space) {
  images(s, begin, end, tiles, static_cast<const bf16*>(in), u, out, space);
}

// U of the filters [begin, end), multiples of 16. Forward: the outputs are filters, and vectors
// over the inputs are turned in blocks of 16 x 16.
void filters_forward(std::int64_t filters, std::int64_t channels, std::int64_t begin,
                     std::int64_t end, const float* weight, float* u) {
  const D tag;
  alignas(64) float block[kPoints][kPanel][kPanel];
  for (std::int64_t k0 = begin; k0 < end; k0 += kPanel)
    for (std::int64_t c0 = 0; c0 < channels; c0 += kPanel) {
      for (std::int64_t k = 0; k < kPanel; ++k)
        for (std::int64_t i = 0; i < kVectors; ++i) {
          const float* const w = weight + (k0 + k) * 9 * channels + c0 + i * kLanes;
          in_two_dimensions<3, kIn>(
              filter_points,
              [&](std::int64_t r, std::int64_t col)
                  HWY_ATTR { return hn::LoadU(tag, w + (r * 3 + col) * channels); },
              [&](std::int64_t r, std::int64_t col, V value)
                  HWY_ATTR { hn::Store(value, tag, block[r * kIn + col][k] + i * kLanes); });
        }
      for (std::int64_t point = 0; point < kPoints; ++point) {
        float* const to = u + point * point_stride(filters / kPanel, channels) +
                          (k0 / kPanel * channels + c0) * kPanel;
        for (std::int64_t c = 0; c < kPanel; ++c)
          for (std::int64_t k = 0; k < kPanel; ++k) to[c * kPanel + k] = block[point][k][c];
      }
    }
}

// Backward: the outputs are the channels and the taps are mirrored.
void filters_backward(std::int64_t filters, std::int64_t channels, std::int64_t begin,
                      std::int64_t end, const float* weight, float* u) {
  const D tag;
  for (std::int64_t k = begin; k < end; ++k)
    for (std::int64_t c = 0; c < channels; c += kLanes) {
      const float* const w = weight + k * 9 * channels + c;
      in_two_dimensions<3, kIn>(
          filter_points,
          [&](std::int64_t r, std::int64_t col)
              HWY_ATTR { return hn::LoadU(tag, w + ((2 - r) * 3 + 2 - col) * channels); },
          [&](std::int64_t r, std::int64_t col, V value) HWY_ATTR {
            hn::StoreU(value, tag,
                       u + (r * kIn + col) * point_stride(channels / kPanel, filters) +
                           (c / kPanel * filters + k) * kPanel + c % kPanel);
          });
    }
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels::conv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>

#include "kernels/common/parallel.h"

namespace retort::kernels::conv {
namespace {

HWY_EXPORT(images_f32);
HWY_EXPORT(images_bf16);
HWY_EXPORT(filters_forward);
HWY_EXPORT(filters_backward);

// Images of one task: about 64 tiles.
std::int64_t images_per_task(const Conv2dShape& shape, const Images& s) {
  const std::int64_t together = images_together(shape);
  const std::int64_t images = std::max<std::int64_t>(64 / s.tiles(), 1);
  return std::min(ceil_div(images, together) * together, s.batch);
}

// Tiles that are transformed at a time: V and M in about 512 KiB, but enough of them to make
// reading U worthwhile.
std::int64_t tiles_at_once(const Images& s, std::int64_t images) {
  const std::int64_t fit = (std::int64_t{512} << 10) / (kPoints * (s.in_c + s.out_c) * 4);
  const std::int64_t u_bytes = kPoints * s.in_c * s.out_c * 4;
  const std::int64_t least = u_bytes > (std::int64_t{12} << 20) ? 64 : 24;
  const std::int64_t all = ceil_div(images * s.tiles(), kTileStep) * kTileStep;
  return std::min(all, std::clamp<std::int64_t>(fit / kTileStep * kTileStep, least, 64));
}

std::size_t filters_elements(const Conv2dShape& s) {
  return static_cast<std::size_t>(kPoints * (s.channels * s.filters + kPanel));
}

}  // namespace

bool winograd_fits(const Conv2dShape& s) {
  if (s.filter_height != 3 || s.filter_width != 3 || s.stride != 1 || s.padding > 2) return false;
  if (s.channels % kPanel != 0 || s.filters % kPanel != 0) return false;
  return s.batch * ceil_div(s.out_height(), kOut) * ceil_div(s.out_width(), kOut) >= 16;
}

std::size_t winograd_workspace(Pass pass, const Conv2dShape& shape) {
  if (pass == Pass::kBackwardWeight) return winograd_weight_workspace(shape);
  return filters_elements(shape) * sizeof(float);
}

void winograd_images(Pass pass, const Conv2dShape& shape, void* out, const void* in, DType dtype,
                     const float* weight, std::byte* scratch, const ImagesDone<float>& done) {
  const Images s = images_of(pass, shape);
  float* const u = reinterpret_cast<float*>(scratch);
  parallel_for(shape.filters, kPanel, [&](std::int64_t begin, std::int64_t end) {
    if (pass == Pass::kBackwardData) HWY_DYNAMIC_DISPATCH(filters_backward)
    (shape.filters, shape.channels, begin, end, weight, u);
    else HWY_DYNAMIC_DISPATCH(filters_forward)(shape.filters, shape.channels, begin, end, weight,
                                               u);
  });
  const std::int64_t each = images_per_task(shape, s), tiles = tiles_at_once(s, each),
                     image = s.out_h * s.out_w * s.out_c;
  const bool narrow = dtype == DType::kBF16;
  const std::size_t products = space_of(s, tiles);
  parallel_for(s.batch, each, [&](std::int64_t begin, std::int64_t end) {
    float* const space =
        thread_space(products + (narrow ? static_cast<std::size_t>(each * image) : 0));
    float* const to = narrow ? space + products : static_cast<float*>(out) + begin * image;
    if (narrow)
      HWY_DYNAMIC_DISPATCH(images_bf16)(s, begin, end, tiles, in, u, to, space);
    else
      HWY_DYNAMIC_DISPATCH(images_f32)(s, begin, end, tiles, in, u, to, space);
    if (done) done(begin, end, to);
  });
}

}  // namespace retort::kernels::conv
#endif  // HWY_ONCE
