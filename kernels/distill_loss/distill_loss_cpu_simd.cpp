// Fast rows of the distillation loss: one pass over the logits in blocks that stay in the first
// level cache, exponentials kept for the gradient.
#include "kernels/distill_loss/distill_loss_rows.h"

#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/distill_loss/distill_loss_cpu_simd.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "hwy/cache_control.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels::distill {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using F = hn::ScalableTag<float>;
using V = hn::Vec<F>;

constexpr float kLog2E = 1.4426950408889634f;

/// 2^y for y <= 0, relative error below 2e-7; 0 below 2^-126, NaN for NaN. The polynomial
/// interpolates 2^f on [-1/2, 1/2] at Chebyshev nodes.
HWY_INLINE V exp2_nonpositive(V y) {
  const F d;
  const hn::RebindToSigned<F> di;
  const V n = hn::Round(y);
  const V f = hn::Sub(y, n);
  V p = hn::Set(d, 1.546144485e-04f);
  p = hn::MulAdd(p, f, hn::Set(d, 1.340042800e-03f));
  p = hn::MulAdd(p, f, hn::Set(d, 9.618056938e-03f));
  p = hn::MulAdd(p, f, hn::Set(d, 5.550327152e-02f));
  p = hn::MulAdd(p, f, hn::Set(d, 2.402265072e-01f));
  p = hn::MulAdd(p, f, hn::Set(d, 6.931471825e-01f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  const auto exponent = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127)));
  return hn::IfThenElse(hn::Lt(y, hn::Set(d, -126.0f)), hn::Zero(d),
                        hn::Mul(p, hn::BitCast(d, exponent)));
}

void ExpArray(const float* x, float* y, std::int64_t n) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  HWY_ALIGN float buffer[hn::MaxLanes(F())];
  for (std::int64_t i = 0; i < n; i += lanes) {
    const std::int64_t m = n - i < lanes ? n - i : lanes;
    for (std::int64_t k = 0; k < lanes; ++k) buffer[k] = k < m ? x[i + k] : 0.0f;
    hn::Store(exp2_nonpositive(hn::Mul(hn::Load(d, buffer), hn::Set(d, kLog2E))), d, buffer);
    for (std::int64_t k = 0; k < m; ++k) y[i + k] = buffer[k];
  }
}

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

/// Largest and second largest of row[0, n) into max and next; where max grows, argmax is set.
template <bool kNext>
HWY_INLINE void block_top(const float* row, std::int64_t begin, std::int64_t n, float& max,
                          float& next, std::int32_t& argmax) {
  const F d;
  V first = hn::Set(d, lowest<float>()), second = first;
  for_each_vector(n, [&](std::int64_t, const auto& load) HWY_ATTR {
    const V x = load(row);
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

/// exp(x) from e = exp(x / tau): tau 1, 2, 4 by squaring, others anew.
template <TauKind kTau>
HWY_INLINE V one_from_tau(V e, V x) {
  if constexpr (kTau == TauKind::kOne) return e;
  if constexpr (kTau == TauKind::kTwo) return hn::Mul(e, e);
  if constexpr (kTau == TauKind::kFour) return hn::Mul(hn::Mul(e, e), hn::Mul(e, e));
  return exp2_nonpositive(hn::Mul(x, hn::Set(F(), kLog2E)));
}

/// ds[v] = ce e1[v] + kd_q es[v] - kd_p et[v] over n elements. Values do not depend on how ds is
/// aligned: its edges are computed as vectors, too.
template <TauKind kTau, bool kCe, bool kKd>
HWY_INLINE void gradient_block(float* ds, const float* es, const float* e1, const float* et,
                               std::int64_t n, float ce, float kd_q, float kd_p, bool stream) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const V vce = hn::Set(d, ce), vq = hn::Set(d, kd_q), vp = hn::Set(d, kd_p);
  const auto at = [&](std::int64_t v) HWY_ATTR {
    const V e = hn::LoadU(d, es + v);
    V g = hn::Zero(d);
    if (kKd) g = hn::NegMulAdd(vp, hn::LoadU(d, et + v), hn::Mul(vq, e));
    if (kCe)
      g = hn::MulAdd(vce, kTau == TauKind::kOther ? hn::LoadU(d, e1 + v) : one_from_tau<kTau>(e, e),
                     g);
    return g;
  };
  const auto part = [&](std::int64_t v, std::int64_t count) HWY_ATTR {
    HWY_ALIGN float buffer[hn::MaxLanes(F())];
    hn::Store(at(v), d, buffer);
    for (std::int64_t k = 0; k < count; ++k) ds[v + k] = buffer[k];
  };
  const std::int64_t misaligned =
      static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(ds) / sizeof(float)) % lanes;
  const std::int64_t head = misaligned == 0 ? 0 : lanes - misaligned;
  std::int64_t v = head < n ? head : n;
  if (v > 0) part(0, v);
  if (stream)
    for (; v + lanes <= n; v += lanes) hn::Stream(at(v), d, ds + v);
  else
    for (; v + lanes <= n; v += lanes) hn::Store(at(v), d, ds + v);
  if (v < n) part(v, n - v);
}

/// Moves sums of the teacher and the student to the maxima of a new block.
struct BlockSums {
  LogitSums<double> s, t;
  double kd = 0;  // sum e_t ((t - m_t) - (s - m_s)), tau not yet divided out
  void rebase(float max_s, float max_t, double inv_tau) {
    const double ds = static_cast<double>(max_s) - s.max, dt = static_cast<double>(max_t) - t.max;
    if (ds != 0 && s.sum != 0) {
      s.sum *= hd_exp(-ds * inv_tau);
      s.sum1 *= hd_exp(-ds);
    }
    if (t.sum != 0 && (ds != 0 || dt != 0)) {
      const double f = hd_exp(-dt * inv_tau), f1 = hd_exp(-dt);
      kd = f == 0 ? 0 : f * (kd + t.sum * (ds - dt));
      t.dot1 = f1 == 0 ? 0 : f1 * (t.dot1 - t.sum1 * dt);
      t.sum *= f;
      t.sum1 *= f1;
    }
    s.max = static_cast<double>(max_s);
    t.max = static_cast<double>(max_t);
  }
};

template <TauKind kTau, bool kTeacher, bool kOnes>
double row_loss(const FastRow& r) {
  const F d;
  const DistillLossArgs& a = *r.args;
  const std::int64_t classes = a.classes;
  const auto inv_tau = static_cast<float>(r.row.inv_tau);
  const V scale = hn::Set(d, inv_tau * kLog2E);
  const double at_s = r.row.target >= 0 ? static_cast<double>(r.s[r.row.target]) : 0;
  const double at_t = kTeacher && r.row.target >= 0 ? static_cast<double>(r.t[r.row.target]) : 0;
  BlockSums sums;
  float max_s = lowest<float>(), max_t = max_s, next_s = max_s, next_t = max_s;
  for (std::int64_t b = 0; b * kFastBlock < classes; ++b) {
    const std::int64_t begin = b * kFastBlock;
    const std::int64_t n = classes - begin < kFastBlock ? classes - begin : kFastBlock;
    const float* const s = r.s + begin;
    const float* const t = kTeacher ? r.t + begin : s;
    float* const es = r.es + begin;
    float* const et = r.et + begin;
    float* const e1 = r.e1 + begin;
    block_top<false>(s, begin, n, max_s, next_s, sums.s.argmax);
    if (kTeacher) block_top<kOnes>(t, begin, n, max_t, next_t, sums.t.argmax);
    sums.rebase(max_s, max_t, r.row.inv_tau);
    r.block_max[2 * b] = max_s;
    r.block_max[2 * b + 1] = max_t;
    const V vmax_s = hn::Set(d, max_s), vmax_t = hn::Set(d, max_t);
    V sum_s = hn::Zero(d), sum_s1 = sum_s, sum_t = sum_s, sum_t1 = sum_s, dot = sum_s, kd = sum_s;
    for_each_vector(n, [&](std::int64_t v, const auto& load) HWY_ATTR {
      const V x = hn::Sub(load(s), vmax_s);
      const V e = exp2_nonpositive(hn::Mul(x, scale));
      hn::StoreU(e, d, es + v);
      sum_s = hn::Add(sum_s, e);
      if (kOnes && kTau != TauKind::kOne) {
        const V one = one_from_tau<kTau>(e, x);
        if (kTau == TauKind::kOther) hn::StoreU(one, d, e1 + v);
        sum_s1 = hn::Add(sum_s1, one);
      }
      if (kTeacher) {
        const V y = hn::Sub(load(t), vmax_t);
        const V f = exp2_nonpositive(hn::Mul(y, scale));
        hn::StoreU(f, d, et + v);
        sum_t = hn::Add(sum_t, f);
        // Where f is 0, the difference may be infinite or NaN: it counts 0.
        kd = hn::MulAdd(f, hn::IfThenElseZero(hn::Gt(f, hn::Zero(d)), hn::Sub(y, x)), kd);
        if (kOnes) {
          const V one = one_from_tau<kTau>(f, y);
          if (kTau != TauKind::kOne) sum_t1 = hn::Add(sum_t1, one);
          dot = hn::MulAdd(one, hn::IfThenElseZero(hn::Gt(one, hn::Zero(d)), y), dot);
        }
      }
    });
    const double s0 = sum_of(sum_s);
    sums.s.sum += s0;
    sums.s.sum1 += kOnes && kTau != TauKind::kOne ? sum_of(sum_s1) : s0;
    if (kTeacher) {
      const double t0 = sum_of(sum_t);
      sums.t.sum += t0;
      sums.t.sum1 += kOnes && kTau != TauKind::kOne ? sum_of(sum_t1) : t0;
      if (kOnes) sums.t.dot1 += sum_of(dot);
      sums.kd += sum_of(kd);
    }
  }
  sums.t.next = static_cast<double>(next_t);

  double divergence = 0;
  if (kTeacher && sums.s.sum != 0 && sums.t.sum != 0)
    divergence = sums.kd * r.row.inv_tau / sums.t.sum + (hd_log(sums.s.sum) - hd_log(sums.t.sum));
  const RowResult<double> result =
      finish_row(r.row, r.inv_z, sums.s, kTeacher, sums.t, divergence, at_s);
  if (a.statistics) store_statistics(a, r.index, r.row, result, sums.s, kTeacher, sums.t, at_t);
  if (!r.ds) return result.loss;

  const bool ce = result.ce_weight != 0, kd = kTeacher && result.kd_weight != 0;
  if (!ce && !kd) {
    fill_row(r.ds, classes, 0.0f);
    return result.loss;
  }
  for (std::int64_t b = 0; b * kFastBlock < classes; ++b) {
    const std::int64_t begin = b * kFastBlock;
    const std::int64_t n = classes - begin < kFastBlock ? classes - begin : kFastBlock;
    // The block's exponentials are relative to the maxima known then.
    const double ds = static_cast<double>(r.block_max[2 * b]) - sums.s.max;
    const double dt = static_cast<double>(r.block_max[2 * b + 1]) - sums.t.max;
    const double es_factor = ds == 0 ? 1 : hd_exp(ds * r.row.inv_tau);
    const double e1_factor = ds == 0 ? 1 : hd_exp(ds);
    const double et_factor = dt == 0 ? 1 : hd_exp(dt * r.row.inv_tau);
    const auto factor_ce = static_cast<float>(result.ce_scale * e1_factor);
    const auto factor_q = static_cast<float>(result.kd_q * es_factor);
    const auto factor_p = static_cast<float>(result.kd_p * et_factor);
    const auto go = [&](auto has_ce, auto has_kd) HWY_ATTR {
      gradient_block<kTau, has_ce.value, has_kd.value>(r.ds + begin, r.es + begin, r.e1 + begin,
                                                       r.et + begin, n, factor_ce, factor_q,
                                                       factor_p, r.stream);
    };
    if (ce && kd)
      go(std::true_type{}, std::true_type{});
    else if (ce)
      go(std::true_type{}, std::false_type{});
    else
      go(std::false_type{}, std::true_type{});
    const std::int64_t y = r.row.target - begin;
    if (ce && y >= 0 && y < n) {
      const auto e = static_cast<double>(r.es[begin + y]);
      const double one = kTau == TauKind::kOne    ? e
                         : kTau == TauKind::kTwo  ? e * e
                         : kTau == TauKind::kFour ? e * e * e * e
                                                  : static_cast<double>(r.e1[begin + y]);
      double g = result.ce_scale * e1_factor * one - result.ce_weight;
      if (kd)
        g += result.kd_q * es_factor * e -
             result.kd_p * et_factor * static_cast<double>(r.et[begin + y]);
      r.ds[begin + y] = static_cast<float>(g);
    }
  }
  return result.loss;
}

template <bool kTeacher, bool kOnes>
double row_by_tau(const FastRow& r) {
  if (!kTeacher || r.row.tau == 1) return row_loss<TauKind::kOne, kTeacher, kOnes>(r);
  if (r.row.tau == 2) return row_loss<TauKind::kTwo, kTeacher, kOnes>(r);
  if (r.row.tau == 4) return row_loss<TauKind::kFour, kTeacher, kOnes>(r);
  return row_loss<TauKind::kOther, kTeacher, kOnes>(r);
}

double FastRowLoss(const FastRow& r) {
  if (!r.has_teacher) {  // labels alone: tau has no say
    FastRow at_one = r;
    at_one.row.tau = at_one.row.inv_tau = 1;
    return row_by_tau<false, true>(at_one);
  }
  return r.ones ? row_by_tau<true, true>(r) : row_by_tau<true, false>(r);
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels::distill
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace retort::kernels::distill {
HWY_EXPORT(ExpArray);
HWY_EXPORT(FastRowLoss);
void exp_nonpositive(const float* x, float* y, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(ExpArray)(x, y, n);
}
double fast_row(const FastRow& row) { return HWY_DYNAMIC_DISPATCH(FastRowLoss)(row); }
void flush_rows() { hwy::FlushStream(); }
}  // namespace retort::kernels::distill
#endif
