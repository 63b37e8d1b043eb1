// Transforms of the Winograd convolution and the walk over its tiles, once per instruction set.
#if defined(RETORT_CONV2D_WINOGRAD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef RETORT_CONV2D_WINOGRAD_INL_H
#undef RETORT_CONV2D_WINOGRAD_INL_H
#else
#define RETORT_CONV2D_WINOGRAD_INL_H
#endif

#include "hwy/highway.h"
#include "kernels/conv2d/conv2d_winograd.h"

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

// As many sums as the registers hold.
constexpr int kRows = kLanes == 16 ? 8 : kLanes == 8 ? 4 : 2;
constexpr int kPanels = kLanes == 16 ? 2 : 1;
static_assert(kTileStep % kRows == 0);

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels::conv
HWY_AFTER_NAMESPACE();
#endif
