// Winograd convolution over Highway.
//
// Note [Winograd layouts]
// A tile is 4x4 outputs, which read 6x6 inputs; transformed, both are 36 numbers per channel, and
// the sum over channels becomes 36 independent matrix products. All operands lie in panels of 16
// channels, so that vectors run over channels and no remainder is left:
//   V (36, C/16, tiles, 16)   transformed inputs
//   U (36, K/16, C, 16)       transformed filters
//   M (36, K/16, tiles, 16)   products, transformed back into outputs
// V and M are made for a few tiles at a time, which stay in the second-level cache.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/conv2d/conv2d_cpu_winograd.cpp"
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/conv2d/conv2d_providers.h"

#ifndef RETORT_CONV2D_WINOGRAD_ONCE
#define RETORT_CONV2D_WINOGRAD_ONCE
namespace retort::kernels::conv {

constexpr std::int64_t kPanel = 16;  // channels
constexpr std::int64_t kOut = 4, kIn = 6, kPoints = kIn * kIn;
constexpr std::int64_t kTileStep = 8;  // tiles are multiplied in groups of this many

// From one of the 36 points to the next, in floats. One cache line more than the data: the 36
// lines that a transform writes at once would else fall into the same few sets of the cache.
constexpr std::int64_t point_stride(std::int64_t panels, std::int64_t rows) {
  return panels * rows * kPanel + kPanel;
}

// One pass over images: forward, or the gradient of the input seen as a convolution of dy.
struct Images {
  std::int64_t batch, in_h, in_w, in_c, out_h, out_w, out_c, padding;
  std::int64_t tiles_h, tiles_w;
  std::int64_t tiles() const { return tiles_h * tiles_w; }  // of one image
};

// Interpolation points 0, +-a, +-b, infinity.
constexpr float kA = 0.625f, kB = 1.5f, kA2 = kA * kA, kB2 = kB * kB;
// 1 / product of the differences to the other points.
constexpr float kN0 = 1 / (kA2 * kB2), kNa = 1 / (2 * kA2 * (kA2 - kB2)),
                kNb = 1 / (2 * kB2 * (kB2 - kA2));

}  // namespace retort::kernels::conv
#endif

HWY_BEFORE_NAMESPACE();
namespace retort::kernels::conv {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, kPanel>;
using V = hn::Vec<D>;
constexpr std::int64_t kLanes = static_cast<std::int64_t>(hn::MaxLanes(D()));
constexpr std::int64_t kVectors = kPanel / kLanes;  // of a panel

// Values of T as f32.
HWY_INLINE V load(const float* from) { return hn::LoadU(D(), from); }
HWY_INLINE V load(const bf16* from) {
  const hn::Rebind<std::uint16_t, D> half;
  const hn::RebindToUnsigned<D> bits;
  return hn::BitCast(
      D(), hn::ShiftLeft<16>(
               hn::PromoteTo(bits, hn::LoadU(half, reinterpret_cast<const std::uint16_t*>(from)))));
}

// ---- the one-dimensional transforms -------------------------------------------------------------

// B^T d: 6 inputs to 6 points.
HWY_INLINE void input_points(const V* d, V* o) {
  const D tag;
  const V a = hn::Set(tag, kA), b = hn::Set(tag, kB), a2 = hn::Set(tag, kA2),
          b2 = hn::Set(tag, kB2), both = hn::Set(tag, kA2 * kB2), sum = hn::Set(tag, kA2 + kB2);
  o[0] = hn::MulAdd(both, d[0], hn::NegMulAdd(sum, d[2], d[4]));
  const V ea = hn::NegMulAdd(b2, d[2], d[4]), fa = hn::Mul(a, hn::NegMulAdd(b2, d[1], d[3]));
  o[1] = hn::Add(ea, fa);
  o[2] = hn::Sub(ea, fa);
  const V eb = hn::NegMulAdd(a2, d[2], d[4]), fb = hn::Mul(b, hn::NegMulAdd(a2, d[1], d[3]));
  o[3] = hn::Add(eb, fb);
  o[4] = hn::Sub(eb, fb);
  o[5] = hn::MulAdd(both, d[1], hn::NegMulAdd(sum, d[3], d[5]));
}

// A^T m: 6 points to 4 outputs.
HWY_INLINE void output_values(const V* m, V* y) {
  const D tag;
  const V sa = hn::Add(m[1], m[2]), da = hn::Sub(m[1], m[2]), sb = hn::Add(m[3], m[4]),
          db = hn::Sub(m[3], m[4]);
  y[0] = hn::Add(m[0], hn::Add(sa, sb));
  y[1] = hn::MulAdd(hn::Set(tag, kA), da, hn::Mul(hn::Set(tag, kB), db));
  y[2] = hn::MulAdd(hn::Set(tag, kA2), sa, hn::Mul(hn::Set(tag, kB2), sb));
  y[3] = hn::MulAdd(hn::Set(tag, kA2 * kA), da, hn::MulAdd(hn::Set(tag, kB2 * kB), db, m[5]));
}

// G g: 3 taps to 6 points.
HWY_INLINE void filter_points(const V* g, V* o) {
  const D tag;
  const V na = hn::Set(tag, kNa), nb = hn::Set(tag, kNb);
  o[0] = hn::Mul(hn::Set(tag, kN0), g[0]);
  const V ea = hn::Mul(na, hn::MulAdd(hn::Set(tag, kA2), g[2], g[0])),
          fa = hn::Mul(hn::Set(tag, kNa * kA), g[1]);
  o[1] = hn::Add(ea, fa);
  o[2] = hn::Sub(ea, fa);
  const V eb = hn::Mul(nb, hn::MulAdd(hn::Set(tag, kB2), g[2], g[0])),
          fb = hn::Mul(hn::Set(tag, kNb * kB), g[1]);
  o[3] = hn::Add(eb, fb);
  o[4] = hn::Sub(eb, fb);
  o[5] = g[2];
}

// The transpose of A^T: 4 values of dy as a filter, 6 points, without the factors N, which
// tap_values puts on the sums.
HWY_INLINE void gradient_points(const V* g, V* o) {
  const D tag;
  o[0] = g[0];
  const V ea = hn::MulAdd(hn::Set(tag, kA2), g[2], g[0]),
          fa = hn::Mul(hn::Set(tag, kA), hn::MulAdd(hn::Set(tag, kA2), g[3], g[1]));
  o[1] = hn::Add(ea, fa);
  o[2] = hn::Sub(ea, fa);
  const V eb = hn::MulAdd(hn::Set(tag, kB2), g[2], g[0]),
          fb = hn::Mul(hn::Set(tag, kB), hn::MulAdd(hn::Set(tag, kB2), g[3], g[1]));
  o[3] = hn::Add(eb, fb);
  o[4] = hn::Sub(eb, fb);
  o[5] = g[3];
}

// 6 points to the 3 taps of the filter's gradient: the transpose of G.
HWY_INLINE void tap_values(const V* m, V* y) {
  const D tag;
  const V sa = hn::Mul(hn::Set(tag, kNa), hn::Add(m[1], m[2])),
          sb = hn::Mul(hn::Set(tag, kNb), hn::Add(m[3], m[4]));
  y[0] = hn::MulAdd(hn::Set(tag, kN0), m[0], hn::Add(sa, sb));
  y[1] = hn::MulAdd(hn::Set(tag, kNa * kA), hn::Sub(m[1], m[2]),
                    hn::Mul(hn::Set(tag, kNb * kB), hn::Sub(m[3], m[4])));
  y[2] = hn::MulAdd(hn::Set(tag, kA2), sa, hn::MulAdd(hn::Set(tag, kB2), sb, m[5]));
}

// Both dimensions: load(i, j) gives the value at row i, column j of kFrom x kFrom; store(i, j, v)
// takes kTo x kTo.
template <std::int64_t kFrom, std::int64_t kTo, class Transform, class Load, class Store>
HWY_INLINE void in_two_dimensions(Transform&& transform, Load&& load, Store&& store) {
  V half[kTo][kFrom];
  for (std::int64_t j = 0; j < kFrom; ++j) {
    V column[kFrom], points[kTo];
    for (std::int64_t i = 0; i < kFrom; ++i) column[i] = load(i, j);
    transform(column, points);
    for (std::int64_t i = 0; i < kTo; ++i) half[i][j] = points[i];
  }
  for (std::int64_t i = 0; i < kTo; ++i) {
    V points[kTo];
    transform(half[i], points);
    for (std::int64_t j = 0; j < kTo; ++j) store(i, j, points[j]);
  }
}

// ---- tiles
// ----------------------------------------------------------------------------------------

// Calls f(tile of the block, image, row, column) for `count` tiles from `first` on; row and column
// are those of the tile's first output.
template <class F>
HWY_INLINE void for_each_tile(const Images& s, std::int64_t first, std::int64_t count, F&& f) {
  std::int64_t n = first / s.tiles(), ty = first % s.tiles() / s.tiles_w, tx = first % s.tiles_w;
  for (std::int64_t t = 0; t < count; ++t) {
    f(t, n, ty * kOut, tx * kOut);
    if (++tx == s.tiles_w) {
      tx = 0;
      if (++ty == s.tiles_h) ty = 0, ++n;
    }
  }
}

// Asks for what the tile at (row, column) adds to its left neighbour: 36 short runs far from each
// other, which no hardware prefetcher follows.
template <class T>
HWY_INLINE void prefetch_tile(const Images& s, const T* image, std::int64_t row,
                              std::int64_t column) {
  const std::int64_t left = column + kIn - kOut,
                     right = column + kIn < s.in_w ? column + kIn : s.in_w;
  for (std::int64_t h = row < 0 ? 0 : row; h < row + kIn && h < s.in_h; ++h) {
    const T* const from = image + (h * s.in_w + left) * s.in_c;
    constexpr std::int64_t line = 64 / sizeof(T);
    for (std::int64_t c = 0; c < (right - left) * s.in_c; c += line) __builtin_prefetch(from + c);
  }
}

// V of `count` tiles; room for `tiles`.
template <class T>
HWY_INLINE void transform_inputs(const Images& s, const T* in, std::int64_t first,
                                 std::int64_t count, std::int64_t tiles, float* v) {
  const D tag;
  alignas(64) static constexpr T zeros[kPanel] = {};
  const std::int64_t panels = s.in_c / kPanel, point = point_stride(panels, tiles);
  for_each_tile(
      s, first, count,
      [&](std::int64_t t, std::int64_t n, std::int64_t row, std::int64_t column) HWY_ATTR {
        row -= s.padding, column -= s.padding;
        const T* const image = in + n * s.in_h * s.in_w * s.in_c;
        prefetch_tile(s, image, row, column + 2 * kOut);
        if (row >= 0 && column >= 0 && row + kIn <= s.in_h && column + kIn <= s.in_w) {
          const T* const from = image + (row * s.in_w + column) * s.in_c;
          const std::int64_t down = s.in_w * s.in_c, right = s.in_c;
          for (std::int64_t p = 0; p < panels; ++p)
            for (std::int64_t k = 0; k < kVectors; ++k) {
              const T* const x = from + p * kPanel + k * kLanes;
              float* const to = v + (p * tiles + t) * kPanel + k * kLanes;
              in_two_dimensions<kIn, kIn>(
                  input_points,
                  [&](std::int64_t i, std::int64_t j)
                      HWY_ATTR { return load(x + i * down + j * right); },
                  [&](std::int64_t i, std::int64_t j, V value)
                      HWY_ATTR { hn::Store(value, tag, to + (i * kIn + j) * point); });
            }
          return;
        }
        // At an edge: what lies outside reads zeros, without stepping along the channels.
        const T* at[kIn][kIn];
        std::int64_t step[kIn][kIn];
        for (std::int64_t i = 0; i < kIn; ++i)
          for (std::int64_t j = 0; j < kIn; ++j) {
            const std::int64_t h = row + i, w = column + j;
            const bool inside = h >= 0 && h < s.in_h && w >= 0 && w < s.in_w;
            at[i][j] = inside ? image + (h * s.in_w + w) * s.in_c : zeros;
            step[i][j] = inside;
          }
        for (std::int64_t p = 0; p < panels; ++p)
          for (std::int64_t k = 0; k < kVectors; ++k) {
            const std::int64_t c = p * kPanel + k * kLanes;
            float* const to = v + (p * tiles + t) * kPanel + k * kLanes;
            in_two_dimensions<kIn, kIn>(
                input_points,
                [&](std::int64_t i, std::int64_t j)
                    HWY_ATTR { return load(at[i][j] + c * step[i][j]); },
                [&](std::int64_t i, std::int64_t j, V value)
                    HWY_ATTR { hn::Store(value, tag, to + (i * kIn + j) * point); });
          }
      });
}

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

// As many sums as the registers hold.
constexpr int kRows = kLanes == 16 ? 8 : kLanes == 8 ? 4 : 2;
constexpr int kPanels = kLanes == 16 ? 2 : 1;
static_assert(kTileStep % kRows == 0);

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
            V half[kOut][kIn];
            for (std::int64_t j = 0; j < kIn; ++j) {
              V points[kIn], values[kOut];
              for (std::int64_t i = 0; i < kIn; ++i)
                points[i] = hn::Load(tag, from + (i * kIn + j) * point);
              output_values(points, values);
              for (std::int64_t i = 0; i < kOut; ++i) half[i][j] = values[i];
            }
            for (std::int64_t i = 0; i < kOut; ++i) {
              V values[kOut];
              output_values(half[i], values);
              float* const to = y + i * down + p * kPanel + k * kLanes;
              if (whole) {
                for (std::int64_t j = 0; j < kOut; ++j) hn::StoreU(values[j], tag, to + j * right);
              } else if (i < rows) {
                for (std::int64_t j = 0; j < kOut && j < columns; ++j)
                  hn::StoreU(values[j], tag, to + j * right);
              }
            }
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
          V half[kIn][3];
          for (std::int64_t col = 0; col < 3; ++col) {
            V taps[3], points[kIn];
            for (std::int64_t r = 0; r < 3; ++r)
              taps[r] = hn::LoadU(tag, w + (r * 3 + col) * channels);
            filter_points(taps, points);
            for (std::int64_t r = 0; r < kIn; ++r) half[r][col] = points[r];
          }
          for (std::int64_t r = 0; r < kIn; ++r) {
            V points[kIn];
            filter_points(half[r], points);
            for (std::int64_t col = 0; col < kIn; ++col)
              hn::Store(points[col], tag, block[r * kIn + col][k] + i * kLanes);
          }
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
      V half[kIn][3];
      for (std::int64_t col = 0; col < 3; ++col) {
        V taps[3], points[kIn];
        for (std::int64_t r = 0; r < 3; ++r)
          taps[r] = hn::LoadU(tag, w + ((2 - r) * 3 + 2 - col) * channels);
        filter_points(taps, points);
        for (std::int64_t r = 0; r < kIn; ++r) half[r][col] = points[r];
      }
      for (std::int64_t r = 0; r < kIn; ++r) {
        V points[kIn];
        filter_points(half[r], points);
        for (std::int64_t col = 0; col < kIn; ++col)
          hn::StoreU(points[col], tag,
                     u + (r * kIn + col) * point_stride(channels / kPanel, filters) +
                         (c / kPanel * filters + k) * kPanel + c % kPanel);
      }
    }
}

// ---- the gradient of the filters
// ------------------------------------------------------------------

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
            V half[kIn][kOut];
            for (std::int64_t j = 0; j < kOut; ++j) {
              V values[kOut], points[kIn];
              for (std::int64_t i = 0; i < kOut; ++i)
                values[i] =
                    i < rows && j < columns ? load(from + i * down + j * right + c) : hn::Zero(tag);
              gradient_points(values, points);
              for (std::int64_t i = 0; i < kIn; ++i) half[i][j] = points[i];
            }
            for (std::int64_t i = 0; i < kIn; ++i) {
              V points[kIn];
              gradient_points(half[i], points);
              for (std::int64_t j = 0; j < kIn; ++j)
                hn::Store(points[j], tag, to + (i * kIn + j) * point);
            }
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
      V half[3][kIn];
      for (std::int64_t j = 0; j < kIn; ++j) {
        V points[kIn], taps[3];
        for (std::int64_t i = 0; i < kIn; ++i)
          points[i] = hn::LoadU(tag, sums + ((i * kIn + j) * s.out_c + k) * s.in_c + c);
        tap_values(points, taps);
        for (std::int64_t i = 0; i < 3; ++i) half[i][j] = taps[i];
      }
      for (std::int64_t i = 0; i < 3; ++i) {
        V taps[3];
        tap_values(half[i], taps);
        for (std::int64_t j = 0; j < 3; ++j)
          hn::StoreU(taps[j], tag, dweight + ((k * 3 + i) * 3 + j) * s.in_c + c);
      }
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
HWY_EXPORT(weight_inputs_f32);
HWY_EXPORT(weight_inputs_bf16);
HWY_EXPORT(weight_products);
HWY_EXPORT(weight_slice);
HWY_EXPORT(weight_taps);

Images images_of(Pass pass, const Conv2dShape& s) {
  const bool backward = pass == Pass::kBackwardData;
  Images i;
  i.batch = s.batch;
  i.in_h = backward ? s.out_height() : s.height;
  i.in_w = backward ? s.out_width() : s.width;
  i.in_c = backward ? s.filters : s.channels;
  i.out_h = backward ? s.height : s.out_height();
  i.out_w = backward ? s.width : s.out_width();
  i.out_c = backward ? s.channels : s.filters;
  i.padding = backward ? 2 - s.padding : s.padding;
  i.tiles_h = ceil_div(i.out_h, kOut);
  i.tiles_w = ceil_div(i.out_w, kOut);
  return i;
}

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

// V and another operand for `tiles` tiles. The last group of tiles may be read past the last tile:
// into numbers that go nowhere.
std::size_t space_of(const Images& s, std::int64_t tiles) {
  return static_cast<std::size_t>(
      kPoints * (point_stride(s.in_c / kPanel, tiles) + point_stride(s.out_c / kPanel, tiles)));
}

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

std::size_t filters_elements(const Conv2dShape& s) {
  return static_cast<std::size_t>(kPoints * (s.channels * s.filters + kPanel));
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

bool winograd_fits(const Conv2dShape& s) {
  if (s.filter_height != 3 || s.filter_width != 3 || s.stride != 1 || s.padding > 2) return false;
  if (s.channels % kPanel != 0 || s.filters % kPanel != 0) return false;
  return s.batch * ceil_div(s.out_height(), kOut) * ceil_div(s.out_width(), kOut) >= 16;
}

std::size_t winograd_workspace(Pass pass, const Conv2dShape& shape) {
  const Images s = images_of(pass, shape);
  if (pass != Pass::kBackwardWeight) return filters_elements(shape) * sizeof(float);
  const auto sums = static_cast<std::size_t>(sums_elements(s));
  if (takes_slices(s))
    return static_cast<std::size_t>(ceil_div(s.batch, images_per_slice(s))) * sums * sizeof(float);
  return (sums + space_of(s, block_tiles(s))) * sizeof(float);
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
