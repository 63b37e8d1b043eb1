#include "kernels/common/bf16_convert.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/common/bf16_convert.cpp"
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace retort {
namespace HWY_NAMESPACE {

// Plain loops, which GCC vectorises for each instruction set.
void widen_values(float* HWY_RESTRICT to, const bf16* HWY_RESTRICT from, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = to_float(from[i]);
}
void narrow_values(bf16* HWY_RESTRICT to, const float* HWY_RESTRICT from, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = to_bf16(from[i]);
}

}  // namespace HWY_NAMESPACE
}  // namespace retort
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace retort {

HWY_EXPORT(widen_values);
HWY_EXPORT(narrow_values);

void widen(float* to, const bf16* from, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(widen_values)(to, from, n);
}
void narrow(bf16* to, const float* from, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(narrow_values)(to, from, n);
}

}  // namespace retort
#endif  // HWY_ONCE
