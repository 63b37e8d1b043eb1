// A row is kept as floats in memory of the thread while mean, variance and result are computed: it
// stays in the first cache. The loops are plain where GCC vectorises them as they are.
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
  if (std::is_same_v<T, bf16> && (m != nullptr || residual != nullptr))
    for (std::int64_t c = 0; c < n; ++c) s[c] = to_float(from_float<T>(s[c]));
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

template <class T>
void backward_bands(const Context& context, const LayerNormBackwardArgs& a) {
  using A = accumulator_t<T>;
  const std::int64_t n = a.channels, bands = (a.rows + kLayerNormBand - 1) / kLayerNormBand;
  A* partial = nullptr;
  if (a.dweight != nullptr)
    partial = static_cast<A*>(
        context.scratch->get(static_cast<std::size_t>((2 * bands + 1) * n) * sizeof(A)));
  parallel_for(a.rows, kLayerNormBand, [=, &a](std::int64_t begin, std::int64_t end) {
    backward_rows<T>(a, begin, end, partial ? partial + begin / kLayerNormBand * 2 * n : nullptr);
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
                 [&](std::int64_t begin, std::int64_t end) { forward_rows<T>(a, begin, end); });
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
