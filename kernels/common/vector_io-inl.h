// Vectors of floats from and to arrays of float or bf16, whole or in part, compiled for each
// instruction set.
#if defined(RETORT_VECTOR_IO_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RETORT_VECTOR_IO_INL_H_
#undef RETORT_VECTOR_IO_INL_H_
#else
#define RETORT_VECTOR_IO_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/common/bf16.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {

using FloatTag = hwy::HWY_NAMESPACE::ScalableTag<float>;
using FloatVector = hwy::HWY_NAMESPACE::Vec<FloatTag>;

HWY_INLINE FloatVector load_floats(const float* x) {
  return hwy::HWY_NAMESPACE::LoadU(FloatTag(), x);
}
HWY_INLINE FloatVector load_floats(const bf16* x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::Rebind<hwy::bfloat16_t, FloatTag> half;
  return hn::PromoteTo(FloatTag(), hn::LoadU(half, reinterpret_cast<const hwy::bfloat16_t*>(x)));
}
HWY_INLINE void store_floats(FloatVector v, float* y) {
  hwy::HWY_NAMESPACE::StoreU(v, FloatTag(), y);
}
/// Rounds to nearest even, NaN as to_bf16 makes it.
HWY_INLINE void store_floats(FloatVector v, bf16* y) {
  namespace hn = hwy::HWY_NAMESPACE;
  HWY_ALIGN float lane[hn::MaxLanes(FloatTag())];
  hn::Store(v, FloatTag(), lane);
  for (std::size_t k = 0; k < hn::Lanes(FloatTag()); ++k) y[k] = to_bf16(lane[k]);
}
/// The same for the first n lanes; the others are `filler`.
template <class T>
HWY_INLINE FloatVector load_floats(const T* x, std::int64_t n, float filler) {
  namespace hn = hwy::HWY_NAMESPACE;
  HWY_ALIGN float lane[hn::MaxLanes(FloatTag())];
  for (std::int64_t k = 0; k < static_cast<std::int64_t>(hn::Lanes(FloatTag())); ++k)
    lane[k] = k < n ? to_float(x[k]) : filler;
  return hn::Load(FloatTag(), lane);
}
template <class T>
HWY_INLINE void store_floats(FloatVector v, T* y, std::int64_t n) {
  namespace hn = hwy::HWY_NAMESPACE;
  HWY_ALIGN float lane[hn::MaxLanes(FloatTag())];
  hn::Store(v, FloatTag(), lane);
  for (std::int64_t k = 0; k < n; ++k) y[k] = from_float<T>(lane[k]);
}

/// The lanes added in order, in double.
HWY_INLINE double sum_of_lanes(FloatVector v) {
  namespace hn = hwy::HWY_NAMESPACE;
  HWY_ALIGN float lane[hn::MaxLanes(FloatTag())];
  hn::Store(v, FloatTag(), lane);
  double sum = 0;
  for (std::size_t k = 0; k < hn::Lanes(FloatTag()); ++k) sum += static_cast<double>(lane[k]);
  return sum;
}

/// Calls step(at, load, store) for at = 0, lanes, ... below n. load(x) is x[at, at + lanes), with
/// `filler` from n on; store(v, y) writes the lanes below n. Values do not depend on alignment.
template <class Step>
HWY_INLINE void for_each_floats(std::int64_t n, float filler, const Step& step) {
  const auto lanes = static_cast<std::int64_t>(hwy::HWY_NAMESPACE::Lanes(FloatTag()));
  std::int64_t at = 0;
  for (; at + lanes <= n; at += lanes)
    step(
        at, [at](const auto* x) HWY_ATTR { return load_floats(x + at); },
        [at](FloatVector v, auto* y) HWY_ATTR { store_floats(v, y + at); });
  if (at < n)
    step(
        at, [at, n, filler](const auto* x) HWY_ATTR { return load_floats(x + at, n - at, filler); },
        [at, n](FloatVector v, auto* y) HWY_ATTR { store_floats(v, y + at, n - at); });
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard that flips with the target
