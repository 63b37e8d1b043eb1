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
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V exp2_scaled(D d, V x, V scale) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToUnsigned<D> du;
  const V magic = hn::Set(d, 12582912.0f + 127.0f);  // 1.5 * 2^23 + bias
  const V t = hn::MulAdd(x, scale, magic);
  const V f = hn::MulSub(x, scale, hn::Sub(t, magic));
  V p = hn::Set(d, 1.546144485e-04f);
  p = hn::MulAdd(p, f, hn::Set(d, 1.340042800e-03f));
  p = hn::MulAdd(p, f, hn::Set(d, 9.618056938e-03f));
  p = hn::MulAdd(p, f, hn::Set(d, 5.550327152e-02f));
  p = hn::MulAdd(p, f, hn::Set(d, 2.402265072e-01f));
  p = hn::MulAdd(p, f, hn::Set(d, 6.931471825e-01f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  const V power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, t)));
  return hn::IfThenZeroElse(hn::Lt(t, hn::Set(d, 12582912.0f + 127.0f - 125.5f)),
                            hn::Mul(p, power));
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard that flips with the target
