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

void add_and_clamp_f32(std::int64_t rows, std::int64_t filters, const float* bias,
                       const float* residual, bool relu, float* sums) {
  add_and_clamp(rows, filters, bias, residual, relu, sums);
}
void add_and_clamp_f64(std::int64_t rows, std::int64_t filters, const double* bias,
                       const double* residual, bool relu, double* sums) {
  add_and_clamp(rows, filters, bias, residual, relu, sums);
}
}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels::conv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <type_traits>
#include <vector>

#include "kernels/common/bf16_convert.h"
#include "kernels/common/column_moments.h"

namespace retort::kernels::conv {
namespace {
HWY_EXPORT(add_and_clamp_f32);
HWY_EXPORT(add_and_clamp_f64);
}  // namespace

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
    column_moments(sums + r * filters, count, filters, to, to + filters);
  }
}
template void finish_images<float>(const Conv2dArgs&, std::int64_t, std::int64_t, float*);
template void finish_images<double>(const Conv2dArgs&, std::int64_t, std::int64_t, double*);

}  // namespace retort::kernels::conv
#endif  // HWY_ONCE
