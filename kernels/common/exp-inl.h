// The exponential function for vectors of floats, compiled for each instruction set.
#if defined(RETORT_EXP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RETORT_EXP_INL_H_
#undef RETORT_EXP_INL_H_
#else
#define RETORT_EXP_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {

constexpr float kLog2E = 1.4426950408889634f;

/// 2^(x scale) for x scale <= 0 (a little above is fine): relative error below 2e-7 + 8e-8 |x
/// scale|; 0 below 2^-125.5, so that no result is subnormal; NaN for NaN.
///
/// x scale = n + f with |f| <= 1/2. n comes from adding a number so large that the sum has no
/// fraction left; the bias of the exponent is in it too, so that its low bits, shifted, are 2^n.
/// The polynomial interpolates 2^f at Chebyshev nodes.
///
/// Of kCount vectors in step: each waits for its own last product, so that the others fill the
/// wait. vanishes: where the result is 0.
template <int kCount, class D, class V = hwy::HWY_NAMESPACE::Vec<D>,
          class M = hwy::HWY_NAMESPACE::Mask<D>>
HWY_INLINE void exp2_scaled(D d, const V (&x)[kCount], V scale, V (&result)[kCount],
                            M (&vanishes)[kCount]) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToUnsigned<D> du;
  const V magic = hn::Set(d, 12582912.0f + 127.0f);  // 1.5 * 2^23 + bias
  const V least = hn::Set(d, 12582912.0f + 127.0f - 125.5f);
  constexpr float kTerms[] = {1.340042800e-03f, 9.618056938e-03f, 5.550327152e-02f,
                              2.402265072e-01f, 6.931471825e-01f, 1.0f};
  V t[kCount], f[kCount], p[kCount];
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i) t[i] = hn::MulAdd(x[i], scale, magic);
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i) f[i] = hn::MulSub(x[i], scale, hn::Sub(t[i], magic));
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i) p[i] = hn::Set(d, 1.546144485e-04f);
#pragma GCC unroll 8
  for (const float term : kTerms) {
    const V c = hn::Set(d, term);
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) p[i] = hn::MulAdd(p[i], f[i], c);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i) {
    const V power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, t[i])));
    vanishes[i] = hn::Lt(t[i], least);
    result[i] = hn::IfThenZeroElse(vanishes[i], hn::Mul(p[i], power));
  }
}

template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V exp2_scaled(D d, V x, V scale) {
  const V one[1] = {x};
  V result[1];
  hwy::HWY_NAMESPACE::Mask<D> vanishes[1];
  exp2_scaled<1>(d, one, scale, result, vanishes);
  return result[0];
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard that flips with the target
