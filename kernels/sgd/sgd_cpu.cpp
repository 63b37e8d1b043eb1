#include "kernels/sgd/sgd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/sgd/sgd_cpu.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3 | HWY_AVX3_DL)
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/common/parallel.h"
#include "kernels/sgd/sgd_math.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {

// Plain loops, which GCC vectorises for each instruction set.
template <class A, class G, bool kMomentum, bool kNesterov>
void sgd_run(const SgdArgs& args) {
  A* const p = static_cast<A*>(args.parameter);
  const G* const g = static_cast<const G*>(args.gradient);
  A* const buffer = static_cast<A*>(args.momentum_buffer);
  bf16* const copy = args.parameter_copy;
  const SgdFactors<A> f{
      static_cast<A>(*args.learning_rate), static_cast<A>(args.clip ? *args.clip : 1.0f),
      static_cast<A>(args.momentum),       static_cast<A>(1 - args.dampening),
      static_cast<A>(args.weight_decay),   kMomentum && *args.step == 1};
  parallel_for(args.n, std::int64_t{1} << 16, [=](std::int64_t begin, std::int64_t end) {
    A none = 0;
    if (f.first) {
      for (std::int64_t i = begin; i < end; ++i)
        p[i] = sgd_element<A, kMomentum, kNesterov>(p[i], to_float(g[i]),
                                                    kMomentum ? buffer[i] : none, f);
    } else {
      SgdFactors<A> later = f;
      later.first = false;  // known to the compiler in this loop
      for (std::int64_t i = begin; i < end; ++i)
        p[i] = sgd_element<A, kMomentum, kNesterov>(p[i], to_float(g[i]),
                                                    kMomentum ? buffer[i] : none, later);
    }
    if (copy)
      for (std::int64_t i = begin; i < end; ++i) copy[i] = to_bf16(static_cast<float>(p[i]));
  });
}

template <class A, class G>
void sgd_variant(const SgdArgs& args) {
  if (args.momentum == 0)
    sgd_run<A, G, false, false>(args);
  else if (args.nesterov)
    sgd_run<A, G, true, true>(args);
  else
    sgd_run<A, G, true, false>(args);
}

void sgd_loops(const SgdArgs& args) {
  if (args.dtype == DType::kF64)
    sgd_variant<double, double>(args);
  else if (args.gradient_dtype == DType::kBF16)
    sgd_variant<float, bf16>(args);
  else
    sgd_variant<float, float>(args);
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace retort::kernels {

CudaOp<SgdArgs> sgd_cuda = nullptr;

HWY_EXPORT(sgd_loops);

void sgd_cpu(const Context&, const SgdArgs& args) {
  if (args.skip && *args.skip != 0) return;
  HWY_DYNAMIC_DISPATCH(sgd_loops)(args);
}

}  // namespace retort::kernels
#endif  // HWY_ONCE
