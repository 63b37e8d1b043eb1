#include "kernels/adamw/adamw.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/adamw/adamw_cpu.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <cstring>

#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/adamw/adamw_math.h"
#include "kernels/common/parallel.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::int64_t kGrain = std::int64_t{1} << 16;

using D = hn::ScalableTag<float>;

HWY_INLINE hn::Vec<D> load_gradient(D d, const float* g) { return hn::LoadU(d, g); }
HWY_INLINE hn::Vec<D> load_gradient(D d, const bf16* g) {
  const hn::Rebind<hwy::bfloat16_t, D> half;
  return hn::PromoteTo(d, hn::LoadU(half, reinterpret_cast<const hwy::bfloat16_t*>(g)));
}

// One vector of elements.
template <class G>
HWY_INLINE void adamw_vector(float* p, const G* g_at, float* m_at, float* v_at,
                             const AdamWFactors<float>& f) {
  const D d;
  const auto g = hn::Mul(hn::Set(d, f.clip), load_gradient(d, g_at));
  const auto m = hn::MulAdd(hn::Set(d, f.beta1), hn::LoadU(d, m_at),
                            hn::Mul(hn::Set(d, f.one_minus_beta1), g));
  const auto v = hn::MulAdd(hn::Set(d, f.beta2), hn::LoadU(d, v_at),
                            hn::Mul(hn::Set(d, f.one_minus_beta2), hn::Mul(g, g)));
  const auto below =
      hn::MulAdd(hn::Sqrt(v), hn::Set(d, f.rsqrt_correction2), hn::Set(d, f.epsilon));
  const auto step = hn::Div(hn::Mul(hn::Set(d, f.step_size), m), below);
  hn::StoreU(hn::MulSub(hn::Set(d, f.decay), hn::LoadU(d, p), step), d, p);
  hn::StoreU(m, d, m_at);
  hn::StoreU(v, d, v_at);
}

template <class G>
void adamw_floats(const AdamWArgs& args, const AdamWFactors<float>& f) {
  float* const p = static_cast<float*>(args.parameter);
  const G* const g = static_cast<const G*>(args.gradient);
  float* const m = static_cast<float*>(args.first_moment);
  float* const v = static_cast<float*>(args.second_moment);
  bf16* const copy = args.parameter_copy;
  parallel_for(args.n, kGrain, [=](std::int64_t begin, std::int64_t end) HWY_ATTR {
    constexpr std::int64_t kMaxLanes = 16;
    const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(D()));
    constexpr std::int64_t kBlock = 2048;  // the bf16 copy reads p back while it is in L1
    for (std::int64_t at = begin; at < end; at += kBlock) {
      const std::int64_t stop = at + kBlock < end ? at + kBlock : end;
      std::int64_t i = at;
      for (; i + lanes <= stop; i += lanes) adamw_vector(p + i, g + i, m + i, v + i, f);
      if (i < stop) {  // the same vector arithmetic, so that an element's result is the same
                       // wherever it lies in the arena
        float tp[kMaxLanes] = {}, tm[kMaxLanes] = {}, tv[kMaxLanes] = {};
        G tg[kMaxLanes] = {};
        const auto n = static_cast<std::size_t>(stop - i);
        std::memcpy(tp, p + i, n * sizeof(float));
        std::memcpy(tm, m + i, n * sizeof(float));
        std::memcpy(tv, v + i, n * sizeof(float));
        std::memcpy(tg, g + i, n * sizeof(G));
        adamw_vector(tp, tg, tm, tv, f);
        std::memcpy(p + i, tp, n * sizeof(float));
        std::memcpy(m + i, tm, n * sizeof(float));
        std::memcpy(v + i, tv, n * sizeof(float));
      }
      if (copy)
        for (i = at; i < stop; ++i) copy[i] = to_bf16(p[i]);
    }
  });
}

void adamw_loops(const AdamWArgs& args) {
  const float clip = args.clip ? *args.clip : 1.0f;
  if (args.dtype == DType::kF32) {
    const auto f = adamw_factors<float>(*args.learning_rate, *args.step, clip, args.beta1,
                                        args.beta2, args.epsilon, args.weight_decay);
    if (args.gradient_dtype == DType::kBF16)
      adamw_floats<bf16>(args, f);
    else
      adamw_floats<float>(args, f);
    return;
  }
  const auto f = adamw_factors<double>(*args.learning_rate, *args.step, clip, args.beta1,
                                       args.beta2, args.epsilon, args.weight_decay);
  double* const p = static_cast<double*>(args.parameter);
  const double* const g = static_cast<const double*>(args.gradient);
  double* const m = static_cast<double*>(args.first_moment);
  double* const v = static_cast<double*>(args.second_moment);
  bf16* const copy = args.parameter_copy;
  parallel_for(args.n, kGrain, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      p[i] = adamw_element(p[i], g[i], m[i], v[i], f);
      if (copy) copy[i] = to_bf16(static_cast<float>(p[i]));
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace retort::kernels {

CudaOp<AdamWArgs> adamw_cuda = nullptr;

HWY_EXPORT(adamw_loops);

void adamw_cpu(const Context&, const AdamWArgs& args) {
  if (args.skip && *args.skip != 0) return;
  HWY_DYNAMIC_DISPATCH(adamw_loops)(args);
}

}  // namespace retort::kernels
#endif  // HWY_ONCE
