// What block_row() is made of: walking over a row, its largest values.
#if defined(RETORT_DISTILL_LOSS_VECTORS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RETORT_DISTILL_LOSS_VECTORS_INL_H_
#undef RETORT_DISTILL_LOSS_VECTORS_INL_H_
#else
#define RETORT_DISTILL_LOSS_VECTORS_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/distill_loss/distill_loss_math.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels::distill {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using F = hn::ScalableTag<float>;
using V = hn::Vec<F>;

HWY_INLINE double sum_of(V v) {
  const F d;
  HWY_ALIGN float lane[hn::MaxLanes(F())];
  hn::Store(v, d, lane);
  double sum = 0;
  for (std::size_t k = 0; k < hn::Lanes(d); ++k) sum += static_cast<double>(lane[k]);
  return sum;
}

/// Calls f(v, load) for v = 0, lanes, ... below n; load(row) is row[v, v + lanes), -inf from n on.
template <class Step>
HWY_INLINE void for_each_vector(std::int64_t n, const Step& step) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t v = 0;
  for (; v + lanes <= n; v += lanes)
    step(v, [d, v](const float* row) HWY_ATTR { return hn::LoadU(d, row + v); });
  if (v < n)
    step(v, [d, v, n, lanes](const float* row) HWY_ATTR {
      HWY_ALIGN float buffer[hn::MaxLanes(F())];
      for (std::int64_t k = 0; k < lanes; ++k)
        buffer[k] = v + k < n ? row[v + k] : -infinity<float>();
      return hn::Load(d, buffer);
    });
}

/// The same, two vectors at a time where there are two: calls f<kCount>(v, load) with load(row, k)
/// the k-th of kCount vectors from row + v on.
template <class Step>
HWY_INLINE void for_each_pair(std::int64_t n, const Step& step) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t v = 0;
  for (; v + 2 * lanes <= n; v += 2 * lanes)
    step.template operator()<2>(v, [d, v, lanes](const float* row, std::int64_t k)
                                       HWY_ATTR { return hn::LoadU(d, row + v + k * lanes); });
  for_each_vector(n - v, [&](std::int64_t rest, const auto& load) HWY_ATTR {
    step.template operator()<1>(v + rest,
                                [&](const float* row, int) HWY_ATTR { return load(row + v); });
  });
}

/// Largest and second largest of row[0, n) into max and next; where max grows, argmax is set.
template <bool kNext>
HWY_INLINE void block_top(const float* row, std::int64_t begin, std::int64_t n, float& max,
                          float& next, std::int32_t& argmax) {
  const F d;
  V first = hn::Set(d, lowest<float>()), second = first;
  std::int64_t whole = 0;
  if (!kNext) {  // four at a time: the maximum waits for memory, not for itself
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
    V a = first, b = first, c = first;
    for (; whole + 4 * lanes <= n; whole += 4 * lanes) {
      first = hn::Max(first, hn::LoadU(d, row + whole));
      a = hn::Max(a, hn::LoadU(d, row + whole + lanes));
      b = hn::Max(b, hn::LoadU(d, row + whole + 2 * lanes));
      c = hn::Max(c, hn::LoadU(d, row + whole + 3 * lanes));
    }
    first = hn::Max(hn::Max(first, a), hn::Max(b, c));
  }
  for_each_vector(n - whole, [&](std::int64_t, const auto& load) HWY_ATTR {
    const V x = load(row + whole);
    if (kNext) second = hn::Max(second, hn::Min(first, x));
    first = hn::Max(first, x);
  });
  HWY_ALIGN float a[hn::MaxLanes(F())], b[hn::MaxLanes(F())];
  hn::Store(first, d, a);
  hn::Store(second, d, b);
  float top = lowest<float>(), runner = lowest<float>();
  for (std::size_t k = 0; k < hn::Lanes(d); ++k) {
    if (a[k] > top) {
      runner = top;
      top = a[k];
    } else if (a[k] > runner) {
      runner = a[k];
    }
    if (kNext && b[k] > runner) runner = b[k];
  }
  if (top > max) {
    next = runner > max ? runner : max;
    max = top;
    const V vtop = hn::Set(d, top);
    std::int64_t found = -1;
    for_each_vector(n, [&](std::int64_t v, const auto& load) HWY_ATTR {
      if (found >= 0) return;
      const std::intptr_t lane = hn::FindFirstTrue(d, hn::Eq(load(row), vtop));
      if (lane >= 0) found = v + lane;
    });
    argmax = static_cast<std::int32_t>(found < 0 ? -1 : begin + found);
  } else if (top > next) {
    next = top;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels::distill
HWY_AFTER_NAMESPACE();

#endif  // include guard that flips with the target
