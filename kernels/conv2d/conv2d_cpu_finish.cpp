// What follows the sums of a convolution on the CPU, image by image while they are in the cache.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/conv2d/conv2d_cpu_finish.cpp"
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/conv2d/conv2d_providers.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels::conv {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// sums (rows, K) := [relu](sums + bias [+ residual]).
template <class T>
HWY_INLINE void add_and_clamp(std::int64_t rows, std::int64_t filters, const T* bias,
                              const T* residual, bool relu, T* sums) {
  const hn::ScalableTag<T> full;
  const hn::CappedTag<T, 1> one;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(full));
  const auto at = [&](auto d, std::int64_t i, std::int64_t k) HWY_ATTR {
    auto v = hn::LoadU(d, sums + i + k);
    if (bias) v = hn::Add(v, hn::LoadU(d, bias + k));
    if (residual) v = hn::Add(v, hn::LoadU(d, residual + i + k));
    // Not Max: a NaN stays a NaN.
    if (relu) v = hn::IfThenElseZero(hn::Not(hn::Lt(v, hn::Zero(d))), v);
    hn::StoreU(v, d, sums + i + k);
  };
  for (std::int64_t r = 0; r < rows; ++r) {
    std::int64_t k = 0;
    for (; k + n <= filters; k += n) at(full, r * filters, k);
    for (; k < filters; ++k) at(one, r * filters, k);
  }
}

// to[c] = sum over rows of f(x[row, c]) for the columns of kVectors vectors from c = 0. Rows are
// taken kRows at a time, each with sums of its own, so that additions do not wait for each other.
template <int kVectors, int kRows, class D, class T, class F>
HWY_INLINE void sum_columns(D d, std::int64_t rows, std::int64_t width, const T* x, T* to, F&& f) {
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  hn::Vec<D> sum[kRows][kVectors];
  for (int i = 0; i < kRows; ++i)
    for (int j = 0; j < kVectors; ++j) sum[i][j] = hn::Zero(d);
  std::int64_t r = 0;
  for (; r + kRows <= rows; r += kRows)
    for (int i = 0; i < kRows; ++i)
      for (int j = 0; j < kVectors; ++j)
        sum[i][j] = f(d, hn::LoadU(d, x + (r + i) * width + j * n), j * n, sum[i][j]);
  for (; r < rows; ++r)
    for (int j = 0; j < kVectors; ++j)
      sum[0][j] = f(d, hn::LoadU(d, x + r * width + j * n), j * n, sum[0][j]);
  for (int j = 0; j < kVectors; ++j) {
    for (int i = 1; i < kRows; ++i) sum[0][j] = hn::Add(sum[0][j], sum[i][j]);
    hn::StoreU(sum[0][j], d, to + j * n);
  }
}

// mean (K) and m2 (K) = sum of (x - mean)^2 of x (rows, K).
template <class T>
HWY_INLINE void moments(std::int64_t rows, std::int64_t filters, const T* x, T* mean, T* m2) {
  const hn::ScalableTag<T> full;
  const hn::CappedTag<T, 1> one;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(full));
  const auto add = [](auto, auto v, std::int64_t, auto s) HWY_ATTR { return hn::Add(s, v); };
  const auto columns = [&](auto d, auto vectors, auto unrolled, std::int64_t c) HWY_ATTR {
    constexpr int kVectors = decltype(vectors)::value, kRows = decltype(unrolled)::value;
    const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
    sum_columns<kVectors, kRows>(d, rows, filters, x + c, mean + c, add);
    const auto inverse = hn::Set(d, T{1} / static_cast<T>(rows));
    for (std::int64_t j = 0; j < kVectors * lanes; j += lanes)
      hn::StoreU(hn::Mul(hn::LoadU(d, mean + c + j), inverse), d, mean + c + j);
    sum_columns<kVectors, kRows>(d, rows, filters, x + c, m2 + c,
                                 [&](auto tag, auto v, std::int64_t j, auto s) HWY_ATTR {
                                   const auto e = hn::Sub(v, hn::LoadU(tag, mean + c + j));
                                   return hn::MulAdd(e, e, s);
                                 });
  };
  using std::integral_constant;
  std::int64_t c = 0;
  for (; c + 4 * n <= filters; c += 4 * n)
    columns(full, integral_constant<int, 4>{}, integral_constant<int, 2>{}, c);
  for (; c + 2 * n <= filters; c += 2 * n)
    columns(full, integral_constant<int, 2>{}, integral_constant<int, 4>{}, c);
  for (; c + n <= filters; c += n)
    columns(full, integral_constant<int, 1>{}, integral_constant<int, 8>{}, c);
  for (; c < filters; ++c)
    columns(one, integral_constant<int, 1>{}, integral_constant<int, 4>{}, c);
}

void add_and_clamp_f32(std::int64_t rows, std::int64_t filters, const float* bias,
                       const float* residual, bool relu, float* sums) {
  add_and_clamp(rows, filters, bias, residual, relu, sums);
}
void add_and_clamp_f64(std::int64_t rows, std::int64_t filters, const double* bias,
                       const double* residual, bool relu, double* sums) {
  add_and_clamp(rows, filters, bias, residual, relu, sums);
}
void moments_f32(std::int64_t rows, std::int64_t filters, const float* x, float* mean, float* m2) {
  moments(rows, filters, x, mean, m2);
}
void moments_f64(std::int64_t rows, std::int64_t filters, const double* x, double* mean,
                 double* m2) {
  moments(rows, filters, x, mean, m2);
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels::conv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <type_traits>
#include <vector>

#include "hwy/aligned_allocator.h"
#include "kernels/common/bf16_convert.h"

namespace retort::kernels::conv {
namespace {
HWY_EXPORT(add_and_clamp_f32);
HWY_EXPORT(add_and_clamp_f64);
HWY_EXPORT(moments_f32);
HWY_EXPORT(moments_f64);
}  // namespace

float* thread_space(std::size_t floats) {
  thread_local hwy::AlignedFreeUniquePtr<float[]> space;
  thread_local std::size_t size = 0;
  if (size < floats) {
    space = nullptr;
    size = 0;
    space = hwy::AllocateAligned<float>(floats);
    RETORT_CHECK_AS(kMemory, space != nullptr, "[conv2d] no memory for ", floats, " floats");
    std::fill_n(space.get(), floats, 0.0f);
    size = floats;
  }
  return space.get();
}

template <class T>
void finish_images(const Conv2dArgs& args, std::int64_t begin, std::int64_t end, T* sums) {
  const std::int64_t filters = args.shape.filters;
  const std::int64_t image = args.shape.out_height() * args.shape.out_width() * filters;
  const std::int64_t rows = (end - begin) * image / filters;
  if (args.epilogue.any()) {
    const T* const bias = static_cast<const T*>(args.epilogue.bias);
    const T* residual = nullptr;
    std::vector<T> wide;
    if (args.epilogue.residual && args.dtype != DType::kBF16)
      residual = static_cast<const T*>(args.epilogue.residual) + begin * image;
    if constexpr (std::is_same_v<T, float>) {
      if (args.epilogue.residual && args.dtype == DType::kBF16) {
        wide.resize(static_cast<std::size_t>((end - begin) * image));
        widen(wide.data(), static_cast<const bf16*>(args.epilogue.residual) + begin * image,
              (end - begin) * image);
        residual = wide.data();
      }
      HWY_DYNAMIC_DISPATCH(add_and_clamp_f32)
      (rows, filters, bias, residual, args.epilogue.relu, sums);
    } else {
      HWY_DYNAMIC_DISPATCH(add_and_clamp_f64)
      (rows, filters, bias, residual, args.epilogue.relu, sums);
    }
  }
  if constexpr (std::is_same_v<T, float>) {
    if (args.dtype == DType::kBF16) {
      bf16* const y = static_cast<bf16*>(args.y) + begin * image;
      narrow(y, sums, (end - begin) * image);
      if (args.statistics) widen(sums, y, (end - begin) * image);  // they are those of y as stored
    }
  }
  if (args.statistics == nullptr) return;
  const std::int64_t chunk = conv2d_statistics_chunks(args.shape, Device::kCpu).rows;
  const std::int64_t first = begin * image / filters;
  for (std::int64_t r = 0; r < rows; r += chunk) {
    T* const to = static_cast<T*>(args.statistics) + (first + r) / chunk * 2 * filters;
    const std::int64_t count = r + chunk < rows ? chunk : rows - r;
    if constexpr (std::is_same_v<T, float>)
      HWY_DYNAMIC_DISPATCH(moments_f32)(count, filters, sums + r * filters, to, to + filters);
    else
      HWY_DYNAMIC_DISPATCH(moments_f64)(count, filters, sums + r * filters, to, to + filters);
  }
}
template void finish_images<float>(const Conv2dArgs&, std::int64_t, std::int64_t, float*);
template void finish_images<double>(const Conv2dArgs&, std::int64_t, std::int64_t, double*);

}  // namespace retort::kernels::conv
#endif  // HWY_ONCE
