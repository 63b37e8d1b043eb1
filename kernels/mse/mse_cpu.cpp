#include "kernels/mse/mse.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/mse/mse_cpu.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3 | HWY_AVX3_DL)
#include <algorithm>

#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/common/parallel.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {

constexpr std::int64_t kRun = 4096, kChunk = std::int64_t{1} << 14;
constexpr int kLanes = 32;

template <class T>
double squared_error_of_run(const T* x, const T* target, std::int64_t n) {
  using A = accumulator_t<T>;
  A lane[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int l = 0; l < kLanes; ++l) {
      const A d = to_float(x[i + l]) - to_float(target[i + l]);
      lane[l] += d * d;
    }
  for (int l = 0; i + l < n; ++l) {
    const A d = to_float(x[i + l]) - to_float(target[i + l]);
    lane[l] += d * d;
  }
  double total = 0;
  for (int l = 0; l < kLanes; ++l) total += static_cast<double>(lane[l]);
  return total;
}

void mse_loops(const Context& context, const MseArgs& args) {
  dispatch_float(args.dtype, "mse", [&]<class T>() {
    const T* const x = static_cast<const T*>(args.x);
    const T* const target = static_cast<const T*>(args.target);
    const std::int64_t chunks = (args.n + kChunk - 1) / kChunk;
    double* const partial = static_cast<double*>(
        context.scratch->get(static_cast<std::size_t>(chunks) * sizeof(double)));
    parallel_for(args.n, kChunk, [=](std::int64_t begin, std::int64_t end) {
      double total = 0;
      for (std::int64_t i = begin; i < end; i += kRun)
        total += squared_error_of_run(x + i, target + i, std::min(kRun, end - i));
      partial[begin / kChunk] = total;
    });
    double total = 0;
    for (std::int64_t c = 0; c < chunks; ++c) total += partial[c];
    static_cast<T*>(args.loss)[0] =
        from_float<T>(static_cast<accumulator_t<T>>(total / static_cast<double>(args.n)));
  });
}

void mse_backward_loops(const MseBackwardArgs& args) {
  dispatch_float(args.dtype, "mse_backward", [&]<class T>() {
    using A = accumulator_t<T>;
    const T* const x = static_cast<const T*>(args.x);
    const T* const target = static_cast<const T*>(args.target);
    T* const dx = static_cast<T*>(args.dx);
    T* const dtarget = static_cast<T*>(args.dtarget);
    const A factor =
        static_cast<A>(2.0 / static_cast<double>(args.n) *
                       static_cast<double>(to_float(static_cast<const T*>(args.dloss)[0])));
    parallel_for(args.n, std::int64_t{1} << 15, [=](std::int64_t begin, std::int64_t end) {
      if (dx)
        for (std::int64_t i = begin; i < end; ++i)
          dx[i] = from_float<T>(factor * (to_float(x[i]) - to_float(target[i])));
      if (dtarget)
        for (std::int64_t i = begin; i < end; ++i)
          dtarget[i] = from_float<T>(factor * (to_float(target[i]) - to_float(x[i])));
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace retort::kernels {

CudaOp<MseArgs> mse_cuda = nullptr;
CudaOp<MseBackwardArgs> mse_backward_cuda = nullptr;

HWY_EXPORT(mse_loops);
HWY_EXPORT(mse_backward_loops);

void mse_cpu(const Context& context, const MseArgs& args) {
  HWY_DYNAMIC_DISPATCH(mse_loops)(context, args);
}
void mse_backward_cpu(const Context&, const MseBackwardArgs& args) {
  HWY_DYNAMIC_DISPATCH(mse_backward_loops)(args);
}

}  // namespace retort::kernels
#endif  // HWY_ONCE
