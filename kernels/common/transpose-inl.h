// A strip of a matrix of floats turned, compiled for each instruction set: what products do before
// they read an operand along its other dimension.
#if defined(RETORT_TRANSPOSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RETORT_TRANSPOSE_INL_H_
#undef RETORT_TRANSPOSE_INL_H_
#else
#define RETORT_TRANSPOSE_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {

using StripTag = hwy::HWY_NAMESPACE::CappedTag<float, 16>;
constexpr int kStripLanes = static_cast<int>(hwy::HWY_NAMESPACE::MaxLanes(StripTag()));

#if HWY_TARGET != HWY_SCALAR
// Lane 4 i + j of the result is from[4 i * pitch + j]: four values of every fourth row.
template <class Tag>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<Tag> every_fourth_row(Tag tag, const float* from,
                                                         std::int64_t pitch) {
  namespace hn = hwy::HWY_NAMESPACE;
  if constexpr (hn::MaxLanes(tag) <= 4) {
    return hn::LoadU(tag, from);
  } else {
    constexpr std::int64_t half_lanes = static_cast<std::int64_t>(hn::MaxLanes(tag)) / 2;
    const hn::Half<Tag> half;
    return hn::Combine(tag, every_fourth_row(half, from + half_lanes * pitch, pitch),
                       every_fourth_row(half, from, pitch));
  }
}
#endif

/// to[p * stride + lane] = from[lane * pitch + p] for `depth` values of kStripLanes rows.
HWY_INLINE void transpose_strip(const float* from, std::int64_t pitch, std::int64_t depth,
                                float* to, std::int64_t stride) {
  std::int64_t p = 0;
#if HWY_TARGET != HWY_SCALAR
  namespace hn = hwy::HWY_NAMESPACE;
  using V = hn::Vec<StripTag>;
  const StripTag tag;
  const hn::RepartitionToWide<StripTag> pairs;
  for (; p + 4 <= depth; p += 4) {
    const V r0 = every_fourth_row(tag, from + p, pitch),
            r1 = every_fourth_row(tag, from + pitch + p, pitch),
            r2 = every_fourth_row(tag, from + 2 * pitch + p, pitch),
            r3 = every_fourth_row(tag, from + 3 * pitch + p, pitch);
    const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(tag, r0, r1)),
               low23 = hn::BitCast(pairs, hn::InterleaveLower(tag, r2, r3)),
               high01 = hn::BitCast(pairs, hn::InterleaveUpper(tag, r0, r1)),
               high23 = hn::BitCast(pairs, hn::InterleaveUpper(tag, r2, r3));
    float* const out = to + p * stride;
    hn::StoreU(hn::BitCast(tag, hn::InterleaveLower(pairs, low01, low23)), tag, out);
    hn::StoreU(hn::BitCast(tag, hn::InterleaveUpper(pairs, low01, low23)), tag, out + stride);
    hn::StoreU(hn::BitCast(tag, hn::InterleaveLower(pairs, high01, high23)), tag, out + 2 * stride);
    hn::StoreU(hn::BitCast(tag, hn::InterleaveUpper(pairs, high01, high23)), tag, out + 3 * stride);
  }
#endif
  for (; p < depth; ++p)
    for (std::int64_t lane = 0; lane < kStripLanes; ++lane)
      to[p * stride + lane] = from[lane * pitch + p];
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard that flips with the target
