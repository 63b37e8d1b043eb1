#include "kernels/grad_norm/grad_norm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/grad_norm/grad_norm_cpu.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3 | HWY_AVX3_DL)
#include <algorithm>

#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/common/parallel.h"
#include "kernels/grad_norm/grad_norm_math.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {

constexpr std::int64_t kRun = 4096, kChunk = std::int64_t{1} << 14;
constexpr int kLanes = 32;

template <class T>
double squares_of_run(const T* x, std::int64_t n) {
  using A = accumulator_t<T>;
  A lane[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int l = 0; l < kLanes; ++l) {
      const A v = to_float(x[i + l]);
      lane[l] += v * v;
    }
  for (int l = 0; i + l < n; ++l) {
    const A v = to_float(x[i + l]);
    lane[l] += v * v;
  }
  double total = 0;
  for (int l = 0; l < kLanes; ++l) total += static_cast<double>(lane[l]);
  return total;
}

double squares_of_segments(const Context& context, const GradNormArgs& args) {
  double total = 0;
  dispatch_float(args.dtype, "grad_norm", [&]<class T>() {
    for (const GradientSegment& s : args.segments) {
      const T* const x = static_cast<const T*>(s.values);
      const std::int64_t chunks = (s.n + kChunk - 1) / kChunk;
      if (chunks == 0) continue;
      double* const partial = static_cast<double*>(
          context.scratch->get(static_cast<std::size_t>(chunks) * sizeof(double)));
      parallel_for(s.n, kChunk, [=](std::int64_t begin, std::int64_t end) {
        double sum = 0;
        for (std::int64_t i = begin; i < end; i += kRun)
          sum += squares_of_run(x + i, std::min(kRun, end - i));
        partial[begin / kChunk] = sum;
      });
      for (std::int64_t c = 0; c < chunks; ++c) total += partial[c];
    }
  });
  return total;
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace retort::kernels {

CudaOp<GradNormArgs> grad_norm_cuda = nullptr;

HWY_EXPORT(squares_of_segments);

void grad_norm_cpu(const Context& context, const GradNormArgs& args) {
  grad_norm_finish(HWY_DYNAMIC_DISPATCH(squares_of_segments)(context, args), args.max_norm,
                   args.norm, args.clip, args.not_finite);
}

}  // namespace retort::kernels
#endif  // HWY_ONCE
