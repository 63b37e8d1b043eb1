#include "kernels/grad_norm/grad_norm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/grad_norm/grad_norm_cpu.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3 | HWY_AVX3_DL)
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/common/sum_terms-inl.h"
#include "kernels/grad_norm/grad_norm_math.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {

double squares_of_segments(const Context& context, const GradNormArgs& args) {
  double total = 0;
  dispatch_float(args.dtype, "grad_norm", [&]<class T>() {
    for (const GradientSegment& s : args.segments) {
      const T* const x = static_cast<const T*>(s.values);
      total += sum_terms<double>(context.scratch, s.n, [=](std::int64_t i) HWY_ATTR -> double {
        const auto v = static_cast<double>(to_float(x[i]));  // f32 squares leave the range of f32
        return v * v;
      });
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
