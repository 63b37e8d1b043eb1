// Winograd convolution over Highway: the gradient of the filters.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/conv2d/conv2d_cpu_winograd_weight.cpp"
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/conv2d/conv2d_winograd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels::conv {
namespace HWY_NAMESPACE {

// Transformed tiles of x (as V above) and of dy.
template <class T>
HWY_INLINE void weight_inputs(const Images& s, std::int64_t first, std::int64_t begin,
                              std::int64_t end, std::int64_t tiles, const T* x, const T* dy,
                              float* v, float* w) {
  const D tag;
  transform_inputs(s, x, first + begin, end - begin, tiles, v + begin * kPanel);
  const std::int64_t panels = s.out_c / kPanel, point = point_stride(panels, tiles);
  for_each_tile(
      s, first + begin, end - begin,
      [&](std::int64_t t, std::int64_t n, std::int64_t row, std::int64_t column) HWY_ATTR {
        const T* const from = dy + ((n * s.out_h + row) * s.out_w + column) * s.out_c;
        const std::int64_t down = s.out_w * s.out_c, right = s.out_c;
        const std::int64_t rows = s.out_h - row, columns = s.out_w - column;
        for (std::int64_t p = 0; p < panels; ++p)
          for (std::int64_t k = 0; k < kVectors; ++k) {
            const std::int64_t c = p * kPanel + k * kLanes;
            float* const to = w + (p * tiles + begin + t) * kPanel + k * kLanes;
            in_two_dimensions<kOut, kIn>(
                gradient_points,
                [&](std::int64_t i, std::int64_t j) HWY_ATTR {
                  return i < rows && j < columns ? load(from + i * down + j * right + c)
                                                 : hn::Zero(tag);
                },
                [&](std::int64_t i, std::int64_t j, V value)
                    HWY_ATTR { hn::Store(value, tag, to + (i * kIn + j) * point); });
          }
      });
}

void weight_inputs_f32(const Images& s, std::int64_t first, std::int64_t begin, std::int64_t end,
                       std::int64_t tiles, const void* x, const void* dy, float* v, float* w) {
  weight_inputs(s, first, begin, end, tiles, static_cast<const float*>(x),
                static_cast<const float*>(dy), v, w);
}
void weight_inputs_bf16(const Images& s, std::int64_t first, std::int64_t begin, std::int64_t end,
                        std::int64_t tiles, const void* x, const void* dy, float* v, float* w) {
  weight_inputs(s, first, begin, end, tiles, static_cast<const bf16*>(x),
                static_cast<const bf16*>(dy), v, w);
}

// kRows filters x kPanels panels of channels of the sum over tiles of w^T v.
template <int kRows, int kPanels>
HWY_INLINE void add_products(const float* HWY_RESTRICT w, const float* HWY_RESTRICT v,
                             std::int64_t v_panel, std::int64_t count, bool add,
                             float* HWY_RESTRICT sums, std::int64_t row, std::int64_t sums_panel) {
  constexpr int kColumns = kPanels * static_cast<int>(kVectors);
  const D tag;
  V sum[kRows][kColumns];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j) sum[i][j] = hn::Zero(tag);
#pragma GCC unroll 2
  for (std::int64_t t = 0; t < count; ++t) {
    V x[kColumns];
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j)
      x[j] = hn::Load(tag, v + (j / kVectors) * v_panel + t * kPanel + (j % kVectors) * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const V g = hn::Set(tag, w[t * kPanel + i]);
#pragma GCC unroll 8
      for (int j = 0; j < kColumns; ++j) sum[i][j] = hn::MulAdd(g, x[j], sum[i][j]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j) {
      float* const to = sums + i * row + (j / kVectors) * sums_panel + (j % kVectors) * kLanes;
      hn::Store(add ? hn::Add(hn::Load(tag, to), sum[i][j]) : sum[i][j], tag, to);
    }
}

// sums (36, K, C) of the panel `p` of 16 filters at one point, over `count` tiles.
void weight_products(const Images& s, std::int64_t point, std::int64_t p, std::int64_t count,
                     std::int64_t tiles, bool add, const float* v, const float* w, float* sums) {
  const std::int64_t in_panels = s.in_c / kPanel, out_panels = s.out_c / kPanel;
  v += point * point_stride(in_panels, tiles);
  w += point * point_stride(out_panels, tiles) + p * tiles * kPanel;
  sums += (point * s.out_c + p * kPanel) * s.in_c;
  std::int64_t c = 0;
  for (; c + kPanels <= in_panels; c += kPanels)
    for (std::int64_t k = 0; k < kPanel; k += kRows)
      add_products<kRows, kPanels>(w + k, v + c * tiles * kPanel, tiles * kPanel, count, add,
                                   sums + k * s.in_c + c * kPanel, s.in_c, kPanel);
  for (; c < in_panels; ++c)
    for (std::int64_t k = 0; k < kPanel; k += kRows)
      add_products<kRows, 1>(w + k, v + c * tiles * kPanel, tiles * kPanel, count, add,
                             sums + k * s.in_c + c * kPanel, s.in_c, kPanel);
}

// sums (36, K, C) over the images [begin, end), `tiles` tiles at a time. `space` holds V and W.
void weight_slice(const Images& s, std::int64_t begin, std::int64_t end, std::int64_t tiles,
                  const void* x, const void* dy, bool narrow, float* sums, float* space) {
  float* const v = space;
  float* const w = space + kPoints * point_stride(s.in_c / kPanel, tiles);
  for (std::int64_t first = begin * s.tiles(); first < end * s.tiles(); first += tiles) {
    const std::int64_t left = end * s.tiles() - first, count = left < tiles ? left : tiles;
    (narrow ? weight_inputs_bf16 : weight_inputs_f32)(s, first, 0, count, tiles, x, dy, v, w);
    for (std::int64_t point = 0; point < kPoints; ++point)
      for (std::int64_t p = 0; p < s.out_c / kPanel; ++p)
        weight_products(s, point, p, count, tiles, first > begin * s.tiles(), v, w, sums);
  }
}

// dweight (K, 3, 3, C) of the filters [begin, end) from the sums.
void weight_taps(const Images& s, std::int64_t begin, std::int64_t end, const float* sums,
                 float* dweight) {
  const D tag;
  for (std::int64_t k = begin; k < end; ++k)
    for (std::int64_t c = 0; c < s.in_c; c += kLanes) {
      in_two_dimensions<kIn, 3>(
          tap_values,
          [&](std::int64_t i, std::int64_t j) HWY_ATTR {
            return hn::LoadU(tag, sums + ((i * kIn + j) * s.out_c + k) * s.in_c + c);
          },
          [&](std::int64_t i, std::int64_t j, V value)
              HWY_ATTR { hn::StoreU(value, tag, dweight + ((k * 3 + i) * 3 + j) * s.in_c + c); });
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

HWY_EXPORT(weight_inputs_f32);
HWY_EXPORT(weight_inputs_bf16);
HWY_EXPORT(weight_products);
HWY_EXPORT(weight_slice);
HWY_EXPORT(weight_taps);

// Note [Two weight gradients]
// Sums that fit beside V and W into a core's own cache are made per slice of the batch, each by one
// thread, and added in order. Larger ones are made once: all threads transform a block of tiles,
// then share out the 36 points; V and W of a block stay in the last-level cache, and the sums,
// which are read and written once a block, should not be larger than they are.
std::int64_t sums_elements(const Images& s) { return kPoints * s.in_c * s.out_c; }
bool takes_slices(const Images& s) { return sums_elements(s) * 4 <= std::int64_t{600} << 10; }
std::int64_t images_per_slice(const Images& s) {
  const std::int64_t slices =
      std::min(std::clamp<std::int64_t>(s.batch * s.tiles() / 128, 4, 16), s.batch);
  return ceil_div(s.batch, slices);
}
std::int64_t slice_tiles(const Images& s) {
  const std::int64_t fit = ((std::int64_t{900} << 10) - sums_elements(s) * 4) /
                           (kPoints * (s.in_c + s.out_c) * 4) / kTileStep * kTileStep;
  return std::clamp<std::int64_t>(fit, kTileStep, 64);
}
std::int64_t block_tiles(const Images& s) {
  const std::int64_t bytes =
      std::clamp<std::int64_t>(sums_elements(s) * 2, std::int64_t{8} << 20, std::int64_t{32} << 20);
  const std::int64_t tiles = bytes / (kPoints * (s.in_c + s.out_c) * 4) / kTileStep * kTileStep;
  return std::min(std::max(tiles, kTileStep), ceil_div(s.batch * s.tiles(), kTileStep) * kTileStep);
}

void weight_by_slices(const Images& s, float* sums, const void* x, const void* dy, bool narrow) {
  const std::int64_t tiles = slice_tiles(s), each = images_per_slice(s), n = sums_elements(s);
  parallel_for(s.batch, each, [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(weight_slice)
    (s, begin, end, tiles, x, dy, narrow, sums + begin / each * n,
     thread_space(space_of(s, tiles)));
  });
  add_slices(sums, sums, static_cast<std::size_t>(n), ceil_div(s.batch, each), n);
}

void weight_by_blocks(const Images& s, float* sums, float* space, const void* x, const void* dy,
                      bool narrow) {
  const std::int64_t tiles = block_tiles(s), all = s.batch * s.tiles();
  float* const v = space;
  float* const w = v + kPoints * point_stride(s.in_c / kPanel, tiles);
  // A task is one point and up to 8 panels of filters, which share the point's V.
  const std::int64_t panels = s.out_c / kPanel, group = std::min<std::int64_t>(panels, 8),
                     groups = ceil_div(panels, group);
  for (std::int64_t first = 0; first < all; first += tiles) {
    const std::int64_t count = std::min(tiles, all - first);
    parallel_for(count, kTileStep, [&](std::int64_t begin, std::int64_t end) {
      if (narrow)
        HWY_DYNAMIC_DISPATCH(weight_inputs_bf16)(s, first, begin, end, tiles, x, dy, v, w);
      else
        HWY_DYNAMIC_DISPATCH(weight_inputs_f32)(s, first, begin, end, tiles, x, dy, v, w);
    });
    parallel_for(kPoints * groups, 1, [&](std::int64_t begin, std::int64_t) {
      const std::int64_t point = begin / groups, p0 = begin % groups * group;
      for (std::int64_t p = p0; p < std::min(p0 + group, panels); ++p)
        HWY_DYNAMIC_DISPATCH(weight_products)(s, point, p, count, tiles, first > 0, v, w, sums);
    });
  }
}

}  // namespace

std::size_t winograd_weight_workspace(const Conv2dShape& shape) {
  const Images s = images_of(Pass::kBackwardWeight, shape);
  const auto sums = static_cast<std::size_t>(sums_elements(s));
  if (takes_slices(s))
    return static_cast<std::size_t>(ceil_div(s.batch, images_per_slice(s))) * sums * sizeof(float);
  return (sums + space_of(s, block_tiles(s))) * sizeof(float);
}

void winograd_weight(const Conv2dShape& shape, float* dweight, const void* x, const void* dy,
                     DType dtype, std::byte* scratch) {
  const Images s = images_of(Pass::kBackwardWeight, shape);
  float* const sums = reinterpret_cast<float*>(scratch);
  const bool narrow = dtype == DType::kBF16;
  if (takes_slices(s))
    weight_by_slices(s, sums, x, dy, narrow);
  else
    weight_by_blocks(s, sums, sums + sums_elements(s), x, dy, narrow);
  parallel_for(s.out_c, 4, [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(weight_taps)(s, begin, end, sums, dweight);
  });
}

}  // namespace retort::kernels::conv
#endif  // HWY_ONCE
