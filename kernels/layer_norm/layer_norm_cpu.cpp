// A row is kept as floats in memory of the thread while mean, variance and result are computed: it
// stays in the first cache. f64, which checks alone run, has plain loops.
#include "kernels/layer_norm/layer_norm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/layer_norm/layer_norm_cpu.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <algorithm>
#include <cmath>
#include <vector>

#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/common/parallel.h"
#include "kernels/common/vector_io-inl.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {

constexpr int kLanes = 32;  // sums side by side, so that GCC keeps them in vector registers
constexpr int kGroup = 16;  // Philox blocks drawn side by side

// A sum of n terms in an order fixed by n.
template <class A, class Term>
A sum_of(std::int64_t n, const Term& term) {
  A lane[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int l = 0; l < kLanes; ++l) lane[l] += term(i + l);
  for (int l = 0; i + l < n; ++l) lane[l] += term(i + l);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int l = 0; l < width; ++l) lane[l] += lane[l + width];
  return lane[0];
}

// m[c] := 1 / (1 - p) where row n keeps column c, else 0; m holds whole groups.
template <class A>
void mask_of_row(A* m, const DropoutArgs& drop, const DropoutKey& key, std::int64_t n,
                 std::int64_t columns, A scale) {
  const std::uint32_t sample = dropout_sample(drop, n);
  DropoutArgs wide = drop;
  wide.columns = columns;
  std::uint32_t block = dropout_first_block(wide, n);
  std::uint32_t words[kDropoutBlock][kGroup];
  for (std::int64_t c = 0; c < columns; c += kDropoutBlock * kGroup, block += kGroup) {
    for (int i = 0; i < kGroup; ++i) {
      const Philox4 r = dropout_words(key, sample, block + static_cast<std::uint32_t>(i));
      for (int k = 0; k < kDropoutBlock; ++k) words[k][i] = r.v[k];
    }
    for (int i = 0; i < kGroup; ++i)
      for (int k = 0; k < kDropoutBlock; ++k)
        m[c + kDropoutBlock * i + k] = words[k][i] >= key.threshold ? scale : A(0);
  }
}
constexpr std::int64_t mask_size(std::int64_t columns) {
  constexpr std::int64_t kStep = kDropoutBlock * kGroup;
  return (columns + kStep - 1) / kStep * kStep;
}

// s := x, or m x, or with a residual added; also to `sum` where it is wanted.
template <class T, class A>
void load_row(A* __restrict s, const T* x, const T* residual, const A* m, T* sum, std::int64_t n) {
  if (m != nullptr)
    for (std::int64_t c = 0; c < n; ++c) {
      const A v = to_float(x[c]);
      s[c] = m[c] == A(0) ? A(0) : v * m[c];
    }
  else
    for (std::int64_t c = 0; c < n; ++c) s[c] = to_float(x[c]);
  if (residual != nullptr)
    for (std::int64_t c = 0; c < n; ++c) s[c] += to_float(residual[c]);
  if (sum != nullptr)
    for (std::int64_t c = 0; c < n; ++c) sum[c] = from_float<T>(s[c]);
}

template <class T>
void forward_rows(const LayerNormArgs& a, std::int64_t begin, std::int64_t end) {
  using A = accumulator_t<T>;
  const std::int64_t n = a.channels;
  const auto count = static_cast<A>(n);
  const A *const weight = static_cast<const A*>(a.weight), *const bias =
                                                               static_cast<const A*>(a.bias);
  const bool drops = a.drop.p > 0;
  std::vector<A> row(static_cast<std::size_t>(n)),
      mask(static_cast<std::size_t>(drops ? mask_size(n) : 0));
  A* const s = row.data();
  const DropoutKey key = dropout_key(a.drop);
  for (std::int64_t r = begin; r < end; ++r) {
    if (drops) mask_of_row(mask.data(), a.drop, key, r, n, static_cast<A>(1 / (1 - a.drop.p)));
    load_row<T, A>(s, static_cast<const T*>(a.x) + r * a.x_pitch,
                   a.residual ? static_cast<const T*>(a.residual) + r * a.residual_pitch : nullptr,
                   drops ? mask.data() : nullptr, a.sum ? static_cast<T*>(a.sum) + r * n : nullptr,
                   n);
    const A mean = sum_of<A>(n, [=](std::int64_t c) HWY_ATTR { return s[c]; }) / count;
    const A var = sum_of<A>(n,
                            [=](std::int64_t c) HWY_ATTR {
                              const A e = s[c] - mean;
                              return e * e;
                            }) /
                  count;
    const A rstd = A(1) / std::sqrt(var + static_cast<A>(a.epsilon));
    T* const y = static_cast<T*>(a.y) + r * n;
    for (std::int64_t c = 0; c < n; ++c)
      y[c] = from_float<T>((s[c] - mean) * rstd * weight[c] + bias[c]);
    if (a.mean != nullptr) static_cast<A*>(a.mean)[r] = mean, static_cast<A*>(a.rstd)[r] = rstd;
  }
}

// One band: its rows of ds and dx, and its part of dweight and dbias (2, channels).
template <class T>
void backward_rows(const LayerNormBackwardArgs& a, std::int64_t begin, std::int64_t end,
                   accumulator_t<T>* partial) {
  using A = accumulator_t<T>;
  const std::int64_t n = a.channels;
  const auto count = static_cast<A>(n);
  const A* const weight = static_cast<const A*>(a.weight);
  const bool drops = a.dx != nullptr;
  std::vector<A> rows(static_cast<std::size_t>(2 * n)),
      mask(static_cast<std::size_t>(drops ? mask_size(n) : 0));
  A* __restrict const g = rows.data(), * __restrict const xhat = g + n;
  A* __restrict const dweight = partial, * __restrict const dbias = partial ? partial + n : nullptr;
  if (partial != nullptr) std::fill_n(partial, 2 * n, A(0));
  const DropoutKey key = dropout_key(a.drop);
  for (std::int64_t r = begin; r < end; ++r) {
    const T *const dy = static_cast<const T*>(a.dy) + r * a.dy_pitch, *const s =
                                                                          static_cast<const T*>(
                                                                              a.s) +
                                                                          r * a.s_pitch;
    const A mean = static_cast<const A*>(a.mean)[r], rstd = static_cast<const A*>(a.rstd)[r];
    if (partial != nullptr)
      for (std::int64_t c = 0; c < n; ++c) {
        const A d = to_float(dy[c]), x = (A(to_float(s[c])) - mean) * rstd;
        dweight[c] += d * x;
        dbias[c] += d;
        g[c] = d * weight[c];
        xhat[c] = x;
      }
    else
      for (std::int64_t c = 0; c < n; ++c) {
        g[c] = to_float(dy[c]) * weight[c];
        xhat[c] = (A(to_float(s[c])) - mean) * rstd;
      }
    if (a.ds == nullptr && a.dx == nullptr) continue;
    const A mean_g = sum_of<A>(n, [=](std::int64_t c) HWY_ATTR { return g[c]; }) / count,
            mean_gx = sum_of<A>(n, [=](std::int64_t c) HWY_ATTR { return g[c] * xhat[c]; }) / count;
    for (std::int64_t c = 0; c < n; ++c) g[c] = rstd * (g[c] - mean_g - xhat[c] * mean_gx);
    if (a.ds != nullptr) {
      T* const ds = static_cast<T*>(a.ds) + r * n;
      if (a.add_to_ds)
        for (std::int64_t c = 0; c < n; ++c) ds[c] = from_float<T>(A(to_float(ds[c])) + g[c]);
      else
        for (std::int64_t c = 0; c < n; ++c) ds[c] = from_float<T>(g[c]);
    }
    if (!drops) continue;
    mask_of_row(mask.data(), a.drop, key, r, n, static_cast<A>(1 / (1 - a.drop.p)));
    T* const dx = static_cast<T*>(a.dx) + r * n;
    for (std::int64_t c = 0; c < n; ++c)
      dx[c] = from_float<T>(mask[static_cast<std::size_t>(c)] == A(0)
                                ? A(0)
                                : g[c] * mask[static_cast<std::size_t>(c)]);
  }
}

// ---- f32 and bf16, by vectors --------------------------------------------------------------------

namespace hn = hwy::HWY_NAMESPACE;

// v m, and 0 where m is 0 whatever v is.
HWY_INLINE FloatVector masked(FloatVector v, FloatVector m) {
  return hn::IfThenElseZero(hn::Ne(m, hn::Zero(FloatTag())), hn::Mul(v, m));
}

template <class T>
void forward_vectors(const LayerNormArgs& a, std::int64_t begin, std::int64_t end) {
  const FloatTag d;
  const std::int64_t n = a.channels;
  const auto count = static_cast<double>(n);
  const float *const weight = static_cast<const float*>(a.weight), *const bias =
                                                                       static_cast<const float*>(
                                                                           a.bias);
  const bool drops = a.drop.p > 0, rounds = std::is_same_v<T, bf16> && (drops || a.residual);
  std::vector<float> row(static_cast<std::size_t>(n)),
      mask(static_cast<std::size_t>(drops ? mask_size(n) : 0));
  std::vector<T> rounded(static_cast<std::size_t>(rounds ? n : 0));
  float* const s = row.data();
  const float* const m = mask.data();
  const DropoutKey key = dropout_key(a.drop);
  for (std::int64_t r = begin; r < end; ++r) {
    const T *const x = static_cast<const T*>(a.x) + r * a.x_pitch,
                   *const residual = a.residual
                                         ? static_cast<const T*>(a.residual) + r * a.residual_pitch
                                         : nullptr;
    T* const sum = a.sum ? static_cast<T*>(a.sum) + r * n : nullptr;
    if (drops) mask_of_row(mask.data(), a.drop, key, r, n, static_cast<float>(1 / (1 - a.drop.p)));
    FloatVector total = hn::Zero(d);
    for_each_floats(n, 0.0f, [&](std::int64_t, const auto& load, const auto& store) HWY_ATTR {
      FloatVector v = load(x);
      if (drops) v = masked(v, load(m));
      if (residual != nullptr) v = hn::Add(v, load(residual));
      if (rounds) {
        store(v, rounded.data());
        v = load(rounded.data());
      }
      if (sum != nullptr) store(v, sum);
      store(v, s);
      total = hn::Add(total, v);
    });
    const auto mean = static_cast<float>(sum_of_lanes(total) / count);
    const FloatVector vmean = hn::Set(d, mean);
    FloatVector squares = hn::Zero(d);
    for_each_floats(n, mean, [&](std::int64_t, const auto& load, const auto&) HWY_ATTR {
      const FloatVector e = hn::Sub(load(s), vmean);
      squares = hn::MulAdd(e, e, squares);
    });
    const auto rstd = static_cast<float>(1 / std::sqrt(sum_of_lanes(squares) / count + a.epsilon));
    const FloatVector vrstd = hn::Set(d, rstd);
    T* const y = static_cast<T*>(a.y) + r * n;
    for_each_floats(n, 0.0f, [&](std::int64_t, const auto& load, const auto& store) HWY_ATTR {
      const FloatVector xhat = hn::Mul(hn::Sub(load(s), vmean), vrstd);
      store(hn::MulAdd(xhat, load(weight), load(bias)), y);
    });
    if (a.mean != nullptr)
      static_cast<float*>(a.mean)[r] = mean, static_cast<float*>(a.rstd)[r] = rstd;
  }
}

template <class T>
void backward_vectors(const LayerNormBackwardArgs& a, std::int64_t begin, std::int64_t end,
                      float* partial) {
  const FloatTag tag;
  const std::int64_t n = a.channels;
  const auto count = static_cast<double>(n);
  const float* const weight = static_cast<const float*>(a.weight);
  const bool drops = a.dx != nullptr, sums = partial != nullptr;
  std::vector<float> mask(static_cast<std::size_t>(drops ? mask_size(n) : 0));
  const float* const m = mask.data();
  float *const dweight = partial, *const dbias = sums ? partial + n : nullptr;
  if (sums) std::fill_n(partial, 2 * n, 0.0f);
  const DropoutKey key = dropout_key(a.drop);
  for (std::int64_t r = begin; r < end; ++r) {
    const T *const dy = static_cast<const T*>(a.dy) + r * a.dy_pitch, *const s =
                                                                          static_cast<const T*>(
                                                                              a.s) +
                                                                          r * a.s_pitch;
    const FloatVector mean = hn::Set(tag, static_cast<const float*>(a.mean)[r]),
                      rstd = hn::Set(tag, static_cast<const float*>(a.rstd)[r]);
    FloatVector sum_g = hn::Zero(tag), sum_gx = hn::Zero(tag);
    for_each_floats(n, 0.0f, [&](std::int64_t, const auto& load, const auto& store) HWY_ATTR {
      const FloatVector d = load(dy), xhat = hn::Mul(hn::Sub(load(s), mean), rstd),
                        g = hn::Mul(d, load(weight));
      if (sums) {
        store(hn::MulAdd(d, xhat, load(dweight)), dweight);
        store(hn::Add(d, load(dbias)), dbias);
      }
      sum_g = hn::Add(sum_g, g);
      sum_gx = hn::MulAdd(g, xhat, sum_gx);
    });
    if (a.ds == nullptr && a.dx == nullptr) continue;
    const FloatVector mean_g = hn::Set(tag, static_cast<float>(sum_of_lanes(sum_g) / count)),
                      mean_gx = hn::Set(tag, static_cast<float>(sum_of_lanes(sum_gx) / count));
    if (drops) mask_of_row(mask.data(), a.drop, key, r, n, static_cast<float>(1 / (1 - a.drop.p)));
    T *const ds = a.ds ? static_cast<T*>(a.ds) + r * n : nullptr, *const dx =
                                                                      drops
                                                                          ? static_cast<T*>(a.dx) +
                                                                                r * n
                                                                          : nullptr;
    for_each_floats(n, 0.0f, [&](std::int64_t, const auto& load, const auto& store) HWY_ATTR {
      const FloatVector xhat = hn::Mul(hn::Sub(load(s), mean), rstd);
      const FloatVector less = hn::MulAdd(xhat, mean_gx, mean_g);
      const FloatVector v = hn::Mul(rstd, hn::MulSub(load(dy), load(weight), less));
      if (drops) store(masked(v, load(m)), dx);
      if (ds == nullptr) return;
      store(a.add_to_ds ? hn::Add(load(ds), v) : v, ds);
    });
  }
}

template <class T>
void backward_bands(const Context& context, const LayerNormBackwardArgs& a) {
  using A = accumulator_t<T>;
  const std::int64_t n = a.channels, bands = (a.rows + kLayerNormBand - 1) / kLayerNormBand;
  A* partial = nullptr;
  if (a.dweight != nullptr)
    partial = static_cast<A*>(
        context.scratch->get(static_cast<std::size_t>((2 * bands + 1) * n) * sizeof(A)));
  parallel_for(a.rows, kLayerNormBand, [=, &a](std::int64_t begin, std::int64_t end) {
    A* const part = partial ? partial + begin / kLayerNormBand * 2 * n : nullptr;
    if constexpr (std::is_same_v<T, double>)
      backward_rows<T>(a, begin, end, part);
    else
      backward_vectors<T>(a, begin, end, part);
  });
  if (partial == nullptr) return;
  parallel_for(2 * n, 512, [=, &a](std::int64_t begin, std::int64_t end) {
    double total[512] = {};
    for (std::int64_t b = 0; b < bands; ++b)
      for (std::int64_t c = begin; c < end; ++c)
        total[c - begin] += static_cast<double>(partial[b * 2 * n + c]);
    for (std::int64_t c = begin; c < end; ++c)
      (c < n ? static_cast<A*>(a.dweight)[c] : static_cast<A*>(a.dbias)[c - n]) =
          static_cast<A>(total[c - begin]);
  });
}

void layer_norm_rows(const LayerNormArgs& a) {
  dispatch_float(a.dtype, "layer_norm", [&]<class T>() {
    parallel_for(a.rows, std::max<std::int64_t>(1, (std::int64_t{1} << 15) / a.channels),
                 [&](std::int64_t begin, std::int64_t end) {
                   if constexpr (std::is_same_v<T, double>)
                     forward_rows<T>(a, begin, end);
                   else
                     forward_vectors<T>(a, begin, end);
                 });
  });
}
void layer_norm_backward_bands(const Context& context, const LayerNormBackwardArgs& a) {
  dispatch_float(a.dtype, "layer_norm_backward", [&]<class T>() { backward_bands<T>(context, a); });
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace retort::kernels {

CudaOp<LayerNormArgs> layer_norm_cuda = nullptr;
CudaOp<LayerNormBackwardArgs> layer_norm_backward_cuda = nullptr;

HWY_EXPORT(layer_norm_rows);
HWY_EXPORT(layer_norm_backward_bands);

void layer_norm_cpu(const Context&, const LayerNormArgs& args) {
  HWY_DYNAMIC_DISPATCH(layer_norm_rows)(args);
}
void layer_norm_backward_cpu(const Context& context, const LayerNormBackwardArgs& args) {
  HWY_DYNAMIC_DISPATCH(layer_norm_backward_bands)(context, args);
}

}  // namespace retort::kernels
#endif  // HWY_ONCE
