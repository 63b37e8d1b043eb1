// Note [Seven products of one kind]
//   Forward and backward of a head are products c(i, :) = sum_p a(i, p) b(p, :): values of a are
//   broadcast, b and c are read and written by vectors. Rows of a may lie down or across, so the
//   three products over queries (dk, dv: a is p or dz turned) need no copy; k and v are turned once
//   for the two that run over the head's columns.
//
//     z  = q k^T    out = p v    dp = dout v^T    dq = dz k    dk = dz^T q    dv = p^T dout
//
//   Queries come in blocks of kQueries, whose rows of p span all keys: the maximum of a row is known
//   before its first exponential, and nothing is rescaled. Inputs are copied to adjacent floats
//   first: rows of a packed q, k, v are kilobytes apart, which the first cache cannot hold.
#include "kernels/attention/attention_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/attention_cpu_simd.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <algorithm>
#include <cmath>
#include <limits>

#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/common/exp-inl.h"
#include "kernels/common/thread_space.h"
#include "kernels/common/transpose-inl.h"
#include "kernels/common/vector_io-inl.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using D = StripTag;
using V = hn::Vec<D>;
constexpr std::int64_t kLanes = kStripLanes;
constexpr std::int64_t kQueries = 48;
constexpr float kLowest = std::numeric_limits<float>::lowest();  // finite: -inf - -inf is NaN
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// To whole vectors and whole blocks of dropout.
constexpr std::int64_t round_up(std::int64_t n) {
  constexpr std::int64_t kUnit = kLanes < kDropoutBlock ? kDropoutBlock : kLanes;
  return (n + kUnit - 1) / kUnit * kUnit;
}

// ---- the product --------------------------------------------------------------------------------

struct Product {
  const float* a;
  std::int64_t a_row, a_depth;  // a(i, p) = a[i * a_row + p * a_depth]
  const float* b;
  std::int64_t b_pitch;
  float* c;
  std::int64_t c_pitch;
  std::int64_t rows, columns, depth;  // columns: a multiple of kLanes
  bool add;                           // to what c holds
};

template <int kR, int kC>
HWY_INLINE void multiply(const Product& x, std::int64_t row, std::int64_t column) {
  const D tag;
  const float* HWY_RESTRICT a = x.a + row * x.a_row;
  const float* HWY_RESTRICT b = x.b + column;
  float* HWY_RESTRICT c = x.c + row * x.c_pitch + column;
  const std::int64_t a_row = x.a_row;
  V sum[kR][kC];
#pragma GCC unroll 16
  for (int i = 0; i < kR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kC; ++j)
      sum[i][j] = x.add ? hn::LoadU(tag, c + i * x.c_pitch + j * kLanes) : hn::Zero(tag);
  for (std::int64_t p = 0; p < x.depth; ++p, b += x.b_pitch, a += x.a_depth) {
    V line[kC];
#pragma GCC unroll 4
    for (int j = 0; j < kC; ++j) line[j] = hn::LoadU(tag, b + j * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kR; ++i) {
      const V value = hn::Set(tag, a[i * a_row]);
#pragma GCC unroll 4
      for (int j = 0; j < kC; ++j) sum[i][j] = hn::MulAdd(value, line[j], sum[i][j]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kC; ++j) hn::StoreU(sum[i][j], tag, c + i * x.c_pitch + j * kLanes);
}

template <int kC>
HWY_INLINE void multiply_panel(const Product& x, std::int64_t column) {
  // As many sums as the registers hold, beside a line of b and a value of a.
  constexpr int kR = kLanes == 16 ? (kC == 4   ? 6
                                     : kC == 3 ? 8
                                               : 12)
                                  : (kC >= 3   ? 2
                                     : kC == 2 ? 6
                                               : 8);
  std::int64_t r = 0;
  for (; r + kR <= x.rows; r += kR) multiply<kR, kC>(x, r, column);
  if constexpr (kR > 4)
    for (; r + 4 <= x.rows; r += 4) multiply<4, kC>(x, r, column);
  if constexpr (kR > 2)
    for (; r + 2 <= x.rows; r += 2) multiply<2, kC>(x, r, column);
  for (; r < x.rows; ++r) multiply<1, kC>(x, r, column);
}

// An element is the same bits in whatever tile it is.
HWY_NOINLINE void product(const Product& x) {
  constexpr std::int64_t kMost = kLanes == 16 ? 4 : 2;
  std::int64_t column = 0;
  for (std::int64_t left = x.columns / kLanes; left > 0;) {
    // Not four and one: a single vector does not keep the multipliers busy.
    const std::int64_t vectors = left == kMost + 1 && kMost == 4 ? 3 : std::min(left, kMost);
    if (vectors == 4)
      multiply_panel<4>(x, column);
    else if (vectors == 3)
      multiply_panel<3>(x, column);
    else if (vectors == 2)
      multiply_panel<2>(x, column);
    else
      multiply_panel<1>(x, column);
    column += vectors * kLanes;
    left -= vectors;
  }
}

// ---- rows in and out ----------------------------------------------------------------------------

// A head's columns of some rows, as floats.
struct Size {
  std::int64_t rows, columns;  // of the head
};

// to (padded_rows, round_up(columns)), 0 where there is nothing.
template <class T>
HWY_INLINE void pack(const T* from, std::int64_t pitch, const Size& n, float* to,
                     std::int64_t padded_rows) {
  const D tag;
  const std::int64_t width = round_up(n.columns), whole = n.columns / kLanes * kLanes;
  for (std::int64_t r = 0; r < n.rows; ++r, from += pitch, to += width) {
    for (std::int64_t c = 0; c < whole; c += kLanes) hn::StoreU(load_floats(from + c), tag, to + c);
    if (whole < width)
      hn::StoreU(load_floats(from + whole, n.columns - whole, 0.0f), tag, to + whole);
  }
  std::fill_n(to, (padded_rows - n.rows) * width, 0.0f);
}

// from (a multiple of kLanes of rows, round_up(columns)) into to (columns, rows).
HWY_INLINE void turn(const float* from, std::int64_t rows, std::int64_t columns, float* to) {
  for (std::int64_t r = 0; r < rows; r += kLanes)
    transpose_strip(from + r * round_up(columns), round_up(columns), columns, to + r, rows);
}

template <class T>
HWY_INLINE void unpack_row(const float* from, float factor, std::int64_t columns, T* to) {
  const D tag;
  const V f = hn::Set(tag, factor);
  std::int64_t c = 0;
  for (; c + kLanes <= columns; c += kLanes)
    store_floats(hn::Mul(hn::LoadU(tag, from + c), f), to + c);
  if (c < columns) store_floats(hn::Mul(hn::LoadU(tag, from + c), f), to + c, columns - c);
}

// ---- one row of probabilities -------------------------------------------------------------------

// x[keys .. width) := value, width a multiple of kLanes.
HWY_INLINE void fill_tail(float* x, std::int64_t keys, std::int64_t width, float value) {
  std::fill(x + keys, x + width, value);
}

// Calls f(at, integral_constant<count>) for vectors at .. at + count lanes of [0, width).
template <class F>
HWY_INLINE void by_fours(std::int64_t width, F&& f) {
  std::int64_t at = 0;
  for (; at + 4 * kLanes <= width; at += 4 * kLanes) f(at, std::integral_constant<int, 4>());
  for (; at < width; at += kLanes) f(at, std::integral_constant<int, 1>());
}

// z[0 .. keys) := exp(scale (z - top)), behind them 0 up to width. Returns lse.
HWY_INLINE float exponentials(float* z, std::int64_t keys, std::int64_t width, float scale,
                              float& sum) {
  const D tag;
  const std::int64_t used = round_up(keys);
  fill_tail(z, keys, used, kMinusInfinity);
  V top = hn::Set(tag, kLowest);
  for (std::int64_t c = 0; c < used; c += kLanes) top = hn::Max(hn::LoadU(tag, z + c), top);
  const float most = hn::GetLane(hn::MaxOfLanes(tag, top));
  const V all = hn::Set(tag, most), factor = hn::Set(tag, scale * kLog2E);
  V total = hn::Zero(tag);
  by_fours(used, [&](std::int64_t at, auto count) HWY_ATTR {
    constexpr int kCount = decltype(count)::value;
    V x[kCount], e[kCount];
    hn::Mask<D> gone[kCount];
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) x[i] = hn::Sub(hn::LoadU(tag, z + at + i * kLanes), all);
    exp2_scaled<kCount>(tag, x, factor, e, gone);
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) {
      total = hn::Add(total, e[i]);
      hn::StoreU(e[i], tag, z + at + i * kLanes);
    }
  });
  fill_tail(z, used, width, 0.0f);
  sum = hn::GetLane(hn::SumOfLanes(tag, total));
  return sum == 0 ? kMinusInfinity : scale * most + std::log(sum);
}

// z[0 .. keys) := exp(scale z - lse), behind them 0 up to width.
HWY_INLINE void probabilities(float* z, std::int64_t keys, std::int64_t width, float scale,
                              float lse) {
  const D tag;
  const std::int64_t used = round_up(keys);
  const V all = hn::Set(tag, lse == kMinusInfinity ? 0.0f : lse), factor = hn::Set(tag, scale),
          log2e = hn::Set(tag, kLog2E);
  fill_tail(z, keys, used, kMinusInfinity);
  by_fours(used, [&](std::int64_t at, auto count) HWY_ATTR {
    constexpr int kCount = decltype(count)::value;
    V x[kCount], e[kCount];
    hn::Mask<D> gone[kCount];
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i)
      x[i] = hn::MulSub(hn::LoadU(tag, z + at + i * kLanes), factor, all);
    exp2_scaled<kCount>(tag, x, log2e, e, gone);
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) hn::StoreU(e[i], tag, z + at + i * kLanes);
  });
  fill_tail(z, used, width, 0.0f);
}

// m[0 .. width): what dropout multiplies a query's probabilities with.
HWY_INLINE void mask_row(float* m, std::int64_t width, const DropoutKey& key, std::uint32_t sample,
                         std::int64_t query, float kept) {
  for (std::int64_t j = 0; j < width; j += kDropoutBlock) {
    const Philox4 words = attention_words(key, sample, static_cast<std::uint32_t>(query),
                                          static_cast<std::uint32_t>(j / kDropoutBlock));
    for (int k = 0; k < kDropoutBlock; ++k) m[j + k] = words.v[k] >= key.threshold ? kept : 0.0f;
  }
}

HWY_INLINE void multiply_row(float* x, const float* m, std::int64_t width) {
  const D tag;
  for (std::int64_t c = 0; c < width; c += kLanes)
    hn::StoreU(hn::Mul(hn::LoadU(tag, x + c), hn::LoadU(tag, m + c)), tag, x + c);
}

// dp := scale p (dp - delta)
HWY_INLINE void through_softmax(float* dp, const float* p, std::int64_t width, float scale,
                                float delta) {
  const D tag;
  const V less = hn::Set(tag, delta), factor = hn::Set(tag, scale);
  for (std::int64_t c = 0; c < width; c += kLanes) {
    const V change = hn::Sub(hn::LoadU(tag, dp + c), less);
    hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(tag, p + c), factor), change), tag, dp + c);
  }
}

template <class T>
HWY_INLINE float dot(const float* a, const T* b, std::int64_t columns) {
  const D tag;
  V sum = hn::Zero(tag);
  std::int64_t c = 0;
  for (; c + kLanes <= columns; c += kLanes)
    sum = hn::MulAdd(hn::LoadU(tag, a + c), load_floats(b + c), sum);
  if (c < columns)
    sum = hn::MulAdd(hn::LoadU(tag, a + c), load_floats(b + c, columns - c, 0.0f), sum);
  return hn::GetLane(hn::SumOfLanes(tag, sum));
}

// ---- one head of one sequence -------------------------------------------------------------------

// Where a head of a sequence lies, and its dropout.
struct Place {
  std::int64_t begin, rows, column, lse;
  float scale, kept;
  bool causal, drops;
  DropoutKey key;
  std::uint32_t sample;
  template <class Args>
  Place(const Args& a, std::int64_t s, std::int64_t h)
      : begin(a.starts[s]),
        rows(a.starts[s + 1] - begin),
        column(h * a.head_size),
        lse(h * a.rows + begin),
        scale(static_cast<float>(1 / std::sqrt(static_cast<double>(a.head_size)))),
        kept(static_cast<float>(1 / (1 - a.drop.p))),
        causal(a.causal),
        drops(a.drop.p > 0),
        key(attention_key(a.drop, static_cast<int>(h))),
        sample(rows > 0 ? attention_sample(a.drop, s, begin) : 0) {}
  template <class T>
  T* at(T* base, std::int64_t pitch, std::int64_t row) const {
    return base + (begin + row) * pitch + column;
  }
  // Keys that queries first .. first + count - 1 see.
  std::int64_t keys(std::int64_t first, std::int64_t count) const {
    return causal ? first + count : rows;
  }
};

// Hands out parts of thread_space, each a multiple of kLanes.
struct Space {
  float* next;
  float* take(std::int64_t floats) {
    float* const mine = next;
    next += floats;
    return mine;
  }
};

template <class T>
void forward(const AttentionArgs& args, std::int64_t s, std::int64_t h) {
  const Place at(args, s, h);
  const std::int64_t n = at.rows, d = args.head_size, wide_n = round_up(n), wide_d = round_up(d);
  if (n == 0) return;
  const T *const q = static_cast<const T*>(args.q), *const k = static_cast<const T*>(args.k),
                 *const v = static_cast<const T*>(args.v);
  Space space{thread_space(static_cast<std::size_t>(
      2 * wide_n * wide_d + d * wide_n + 2 * kQueries * wide_d + kQueries * wide_n + wide_n))};
  float *const keys = space.take(wide_n * wide_d), *const values = space.take(wide_n * wide_d),
               *const turned = space.take(d * wide_n),
               *const queries = space.take(kQueries * wide_d),
               *const sums = space.take(kQueries * wide_d),
               *const p = space.take(kQueries * wide_n), *const mask = space.take(wide_n);
  pack(at.at(k, args.k_pitch, 0), args.k_pitch, {n, d}, keys, wide_n);
  turn(keys, wide_n, d, turned);
  pack(at.at(v, args.v_pitch, 0), args.v_pitch, {n, d}, values, n);
  for (std::int64_t first = 0; first < n; first += kQueries) {
    const std::int64_t count = std::min(kQueries, n - first), seen = at.keys(first, count),
                       width = round_up(seen);
    pack(at.at(q, args.q_pitch, first), args.q_pitch, {count, d}, queries, count);
    product({queries, wide_d, 1, turned, wide_n, p, wide_n, count, width, d, false});
    float inverse[kQueries];
    for (std::int64_t i = 0; i < count; ++i) {
      float sum = 0;
      const float lse = exponentials(p + i * wide_n, at.keys(first + i, 1), width, at.scale, sum);
      inverse[i] = sum == 0 ? 0 : at.kept / sum;
      if (args.lse) static_cast<float*>(args.lse)[at.lse + first + i] = lse;
      if (!at.drops) continue;
      mask_row(mask, width, at.key, at.sample, first + i, 1.0f);
      multiply_row(p + i * wide_n, mask, width);
    }
    product({p, wide_n, 1, values, wide_d, sums, wide_d, count, wide_d, seen, false});
    for (std::int64_t i = 0; i < count; ++i)
      unpack_row(sums + i * wide_d, inverse[i], d,
                 at.at(static_cast<T*>(args.out), args.out_pitch, first + i));
  }
}

template <class T>
void backward(const AttentionBackwardArgs& args, std::int64_t s, std::int64_t h) {
  const Place at(args, s, h);
  const std::int64_t n = at.rows, d = args.head_size, wide_n = round_up(n), wide_d = round_up(d);
  if (n == 0) return;
  const T *const q = static_cast<const T*>(args.q), *const k = static_cast<const T*>(args.k),
                 *const v = static_cast<const T*>(args.v),
                 *const dout = static_cast<const T*>(args.dout),
                 *const out = static_cast<const T*>(args.out);
  Space space{thread_space(static_cast<std::size_t>(4 * wide_n * wide_d + 2 * d * wide_n +
                                                    3 * kQueries * wide_d + 2 * kQueries * wide_n +
                                                    wide_n))};
  float *const
      keys = space.take(wide_n * wide_d),
      *const values = space.take(wide_n * wide_d), *const dkeys = space.take(wide_n * wide_d),
      *const dvalues = space.take(wide_n * wide_d), *const turned_keys = space.take(d * wide_n),
      *const turned_values = space.take(d * wide_n), *const queries = space.take(kQueries * wide_d),
      *const dqueries = space.take(kQueries * wide_d), *const dsums = space.take(kQueries * wide_d),
      *const p = space.take(kQueries * wide_n), *const dp = space.take(kQueries * wide_n),
      *const mask = space.take(wide_n);
  pack(at.at(k, args.k_pitch, 0), args.k_pitch, {n, d}, keys, wide_n);
  turn(keys, wide_n, d, turned_keys);
  pack(at.at(v, args.v_pitch, 0), args.v_pitch, {n, d}, values, wide_n);
  turn(values, wide_n, d, turned_values);
  for (std::int64_t first = 0; first < n; first += kQueries) {
    const std::int64_t count = std::min(kQueries, n - first), seen = at.keys(first, count),
                       width = round_up(seen);
    pack(at.at(q, args.q_pitch, first), args.q_pitch, {count, d}, queries, count);
    pack(at.at(dout, args.dout_pitch, first), args.dout_pitch, {count, d}, dsums, count);
    product({queries, wide_d, 1, turned_keys, wide_n, p, wide_n, count, width, d, false});
    product({dsums, wide_d, 1, turned_values, wide_n, dp, wide_n, count, width, d, false});
    for (std::int64_t i = 0; i < count; ++i) {
      float *const pi = p + i * wide_n, *const dpi = dp + i * wide_n;
      probabilities(pi, at.keys(first + i, 1), width, at.scale,
                    static_cast<const float*>(args.lse)[at.lse + first + i]);
      const float delta = dot(dsums + i * wide_d, at.at(out, args.out_pitch, first + i), d);
      if (at.drops) {
        mask_row(mask, width, at.key, at.sample, first + i, at.kept);
        multiply_row(dpi, mask, width);
      }
      through_softmax(dpi, pi, width, at.scale, delta);
      if (at.drops) multiply_row(pi, mask, width);
    }
    // Blocks before this one saw no key behind theirs: the rest of dk and dv starts from 0.
    const std::int64_t before = first == 0 ? 0 : at.causal ? first : seen;
    std::fill_n(dkeys + before * wide_d, (seen - before) * wide_d, 0.0f);
    std::fill_n(dvalues + before * wide_d, (seen - before) * wide_d, 0.0f);
    product({p, 1, wide_n, dsums, wide_d, dvalues, wide_d, seen, wide_d, count, true});
    product({dp, 1, wide_n, queries, wide_d, dkeys, wide_d, seen, wide_d, count, true});
    product({dp, wide_n, 1, keys, wide_d, dqueries, wide_d, count, wide_d, seen, false});
    for (std::int64_t i = 0; i < count; ++i)
      unpack_row(dqueries + i * wide_d, 1.0f, d,
                 at.at(static_cast<T*>(args.dq), args.dq_pitch, first + i));
  }
  for (std::int64_t j = 0; j < n; ++j) {
    unpack_row(dkeys + j * wide_d, 1.0f, d, at.at(static_cast<T*>(args.dk), args.dk_pitch, j));
    unpack_row(dvalues + j * wide_d, 1.0f, d, at.at(static_cast<T*>(args.dv), args.dv_pitch, j));
  }
}

void attention_head_here(const AttentionArgs& a, std::int64_t s, std::int64_t h) {
  a.dtype == DType::kF32 ? forward<float>(a, s, h) : forward<bf16>(a, s, h);
}
void attention_backward_head_here(const AttentionBackwardArgs& a, std::int64_t s, std::int64_t h) {
  a.dtype == DType::kF32 ? backward<float>(a, s, h) : backward<bf16>(a, s, h);
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace retort::kernels {

HWY_EXPORT(attention_head_here);
HWY_EXPORT(attention_backward_head_here);

void attention_head(const AttentionArgs& args, std::int64_t sequence, std::int64_t head) {
  HWY_DYNAMIC_DISPATCH(attention_head_here)(args, sequence, head);
}
void attention_backward_head(const AttentionBackwardArgs& args, std::int64_t sequence,
                             std::int64_t head) {
  HWY_DYNAMIC_DISPATCH(attention_backward_head_here)(args, sequence, head);
}

}  // namespace retort::kernels
#endif  // HWY_ONCE
