#include "kernels/mse/mse.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/mse/mse_cpu.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3 | HWY_AVX3_DL)
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/common/parallel.h"
#include "kernels/common/sum_terms-inl.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {

void mse_loops(const Context& context, const MseArgs& args) {
  dispatch_float(args.dtype, "mse", [&]<class T>() {
    using A = accumulator_t<T>;
    const T* const x = static_cast<const T*>(args.x);
    const T* const target = static_cast<const T*>(args.target);
    const double total = sum_terms<A>(context.scratch, args.n, [=](std::int64_t i) HWY_ATTR -> A {
      const A d = to_float(x[i]) - to_float(target[i]);
      return d * d;
    });
    static_cast<T*>(args.loss)[0] =
        from_float<T>(static_cast<A>(total / static_cast<double>(args.n)));
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
