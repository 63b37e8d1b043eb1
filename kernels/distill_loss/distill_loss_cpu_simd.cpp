// Rows of the distillation loss in one pass over the logits in blocks that stay in the first
// level cache, exponentials kept for the gradient.
#include "kernels/distill_loss/distill_loss_rows.h"

#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/distill_loss/distill_loss_cpu_simd.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "hwy/cache_control.h"
#include "hwy/contrib/math/math-inl.h"
#include "kernels/common/exp-inl.h"
#include "kernels/distill_loss/distill_loss_vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels::distill {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using kernels::HWY_NAMESPACE::exp2_scaled;
using kernels::HWY_NAMESPACE::kLog2E;

void ExpArray(const float* x, float* y, std::int64_t n) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  HWY_ALIGN float buffer[hn::MaxLanes(F())];
  for (std::int64_t i = 0; i < n; i += lanes) {
    const std::int64_t m = n - i < lanes ? n - i : lanes;
    for (std::int64_t k = 0; k < lanes; ++k) buffer[k] = k < m ? x[i + k] : 0.0f;
    hn::Store(exp2_scaled(d, hn::Load(d, buffer), hn::Set(d, kLog2E)), d, buffer);
    for (std::int64_t k = 0; k < m; ++k) y[i + k] = buffer[k];
  }
}

/// exp(x) from e = exp(x / tau): tau 1, 2, 4 by squaring, others anew.
template <TauKind kTau>
HWY_INLINE V one_from_tau(V e, V x) {
  if constexpr (kTau == TauKind::kOne) return e;
  if constexpr (kTau == TauKind::kTwo) return hn::Mul(e, e);
  if constexpr (kTau == TauKind::kFour) return hn::Mul(hn::Mul(e, e), hn::Mul(e, e));
  return exp2_scaled(F(), x, hn::Set(F(), kLog2E));
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

/// Factors that take a block's exponentials, relative to the maxima known then, to those of the
/// whole row.
struct BlockFactors {
  double s, t, s1;
};
HWY_INLINE BlockFactors factors_of(const BlockRow& r, const BlockSums& sums, std::int64_t block) {
  const double ds = static_cast<double>(r.block_max[2 * block]) - sums.s.max;
  const double dt = static_cast<double>(r.block_max[2 * block + 1]) - sums.t.max;
  return {ds == 0 ? 1 : hd_exp(ds * r.row.inv_tau), dt == 0 ? 1 : hd_exp(dt * r.row.inv_tau),
          ds == 0 ? 1 : hd_exp(ds)};
}

/// Block b of the gradient in `pending`: ds = ce_scale e1 + kd_q es - kd_p et.
template <TauKind kTau>
void write_block(const PendingGradient& pending, std::int64_t b) {
  const BlockRow& r = pending.row;
  const RowResult<double>& result = pending.result;
  const std::int64_t begin = b * kRowBlock, left = r.args->classes - begin;
  const std::int64_t n = left < kRowBlock ? left : kRowBlock;
  const bool ce = result.ce_weight != 0, kd = result.kd_weight != 0;
  const BlockFactors f = factors_of(r, pending.sums, b);
  const double ce_scale = result.ce_scale * f.s1, kd_q = result.kd_q * f.s,
               kd_p = pending.absolute_t ? result.kd_p : result.kd_p * f.t;
  const auto go = [&](auto has_ce, auto has_kd) HWY_ATTR {
    gradient_block<kTau, has_ce.value, has_kd.value>(
        r.ds + begin, r.es + begin, r.e1 + begin, r.et + begin, n, static_cast<float>(ce_scale),
        static_cast<float>(kd_q), static_cast<float>(kd_p), r.stream);
  };
  if (ce && kd)
    go(std::true_type{}, std::true_type{});
  else if (ce)
    go(std::true_type{}, std::false_type{});
  else
    go(std::false_type{}, std::true_type{});
  const std::int64_t y = r.row.target - begin;
  if (ce && y >= 0 && y < n) {  // a difference that may cancel: in double
    const auto e = static_cast<double>(r.es[begin + y]);
    const double one = kTau == TauKind::kOne    ? e
                       : kTau == TauKind::kTwo  ? e * e
                       : kTau == TauKind::kFour ? e * e * e * e
                                                : static_cast<double>(r.e1[begin + y]);
    double g = ce_scale * one - result.ce_weight;
    if (kd) g += kd_q * e - kd_p * static_cast<double>(r.et[begin + y]);
    r.ds[begin + y] = static_cast<float>(g);
  }
}
void write_block(const PendingGradient& pending, std::int64_t b) {
  switch (pending.tau_kind) {
    case TauKind::kOne: return write_block<TauKind::kOne>(pending, b);
    case TauKind::kTwo: return write_block<TauKind::kTwo>(pending, b);
    case TauKind::kFour: return write_block<TauKind::kFour>(pending, b);
    case TauKind::kOther: return write_block<TauKind::kOther>(pending, b);
  }
}

void FinishGradient(PendingGradient& pending) {
  if (!pending.is_due) return;
  pending.is_due = false;
  for (std::int64_t b = 0; b * kRowBlock < pending.row.args->classes; ++b) write_block(pending, b);
}

/// First pass: exponentials into es, et, e1, and the sums over them. kOnes: those of the student at
/// tau = 1 are wanted; kStats: all that the teacher's statistics need, too.
template <TauKind kTau, bool kTeacher, bool kOnes, bool kStats>
void sum_row(const BlockRow& r, BlockSums& sums, const PendingGradient& pending) {
  const F d;
  const std::int64_t classes = r.args->classes;
  const V scale = hn::Set(d, static_cast<float>(r.row.inv_tau) * kLog2E);
  float max_s = lowest<float>(), max_t = max_s, next_s = max_s, next_t = max_s;
  for (std::int64_t b = 0; b * kRowBlock < classes; ++b) {
    const std::int64_t begin = b * kRowBlock;
    const std::int64_t n = classes - begin < kRowBlock ? classes - begin : kRowBlock;
    const float* const s = r.s + begin;
    const float* const t = kTeacher ? r.t + begin : s;
    float* const es = r.es + begin;
    float* const et = r.et + begin;
    float* const e1 = r.e1 + begin;
    if (pending.is_due) write_block(pending, b);
    block_top<false>(s, begin, n, max_s, next_s, sums.s.argmax);
    if (kTeacher) block_top<kStats>(t, begin, n, max_t, next_t, sums.t.argmax);
    sums.rebase(max_s, max_t, r.row.inv_tau);
    r.block_max[2 * b] = max_s;
    r.block_max[2 * b + 1] = max_t;
    const V vmax_s = hn::Set(d, max_s), vmax_t = hn::Set(d, max_t);
    V sum_s = hn::Zero(d), sum_s1 = sum_s, sum_t = sum_s, sum_t1 = sum_s, dot = sum_s, kd = sum_s;
    for_each_pair(n, [&]<int kCount>(std::int64_t v, const auto& load) HWY_ATTR {
      constexpr int kLogits = kTeacher ? 2 : 1, kAll = kLogits * kCount;
      constexpr auto kLanes = static_cast<std::int64_t>(hn::MaxLanes(F()));
      // The next block comes from memory while this one is computed; at the row's end, the next
      // row's first (which lies there as a rule; the address need not be ours).
      for (std::int64_t k = 0; k < kCount * kLanes; k += kCacheLine) {
        hwy::Prefetch(s + v + k + kRowBlock);
        if (kTeacher) hwy::Prefetch(t + v + k + kRowBlock);
      }
      V at[kAll], exps[kAll];
      hn::Mask<F> vanishes[kAll];
      for (int k = 0; k < kCount; ++k) {
        at[kLogits * k] = hn::Sub(load(s, k), vmax_s);
        if constexpr (kTeacher) at[kLogits * k + 1] = hn::Sub(load(t, k), vmax_t);
      }
      exp2_scaled<kAll>(d, at, scale, exps, vanishes);
      for (int k = 0; k < kCount; ++k) {
        const std::int64_t to = v + k * kLanes;
        const V x = at[kLogits * k], e = exps[kLogits * k];
        hn::StoreU(e, d, es + to);
        sum_s = hn::Add(sum_s, e);
        if (kOnes && kTau != TauKind::kOne) {
          const V one = one_from_tau<kTau>(e, x);
          if (kTau == TauKind::kOther) hn::StoreU(one, d, e1 + to);
          sum_s1 = hn::Add(sum_s1, one);
        }
        if constexpr (kTeacher) {
          const V y = at[kLogits * k + 1], f = exps[kLogits * k + 1];
          hn::StoreU(f, d, et + to);
          sum_t = hn::Add(sum_t, f);
          // Where f is 0, the difference may be infinite or NaN: it counts 0.
          const auto none = vanishes[kLogits * k + 1];
          kd = hn::MulAdd(f, hn::IfThenZeroElse(none, hn::Sub(y, x)), kd);
          if (kStats) {
            const V one = one_from_tau<kTau>(f, y);
            if (kTau != TauKind::kOne) sum_t1 = hn::Add(sum_t1, one);
            dot = hn::MulAdd(one, hn::IfThenZeroElse(none, y), dot);
          }
        }
      }
    });
    const double s0 = sum_of(sum_s);
    sums.s.sum += s0;
    sums.s.sum1 += kOnes && kTau != TauKind::kOne ? sum_of(sum_s1) : s0;
    if (kTeacher) {
      const double t0 = sum_of(sum_t);
      sums.t.sum += t0;
      sums.t.sum1 += kStats && kTau != TauKind::kOne ? sum_of(sum_t1) : t0;
      if (kStats) sums.t.dot1 += sum_of(dot);
      sums.kd += sum_of(kd);
    }
  }
  sums.t.next = static_cast<double>(next_t);
}

// One vector of a divergence's elements: as its functor's element(), from p, q and u = log(q / p).
// Logarithms of mixtures go by log1p and expm1 of u, so that they stay accurate where p and q are
// close. A functor without such a function is computed element by element. What vanishes is asked by
// Eq: NaN is not equal, and so it shows (Ne may be false for it too, as with AVX-512).
HWY_INLINE void elements_of(divergence::ReverseKl, V, V q, V u, V, V& part, V& h) {
  part = h = hn::IfThenZeroElse(hn::Eq(q, hn::Zero(F())), hn::Mul(q, u));
}
HWY_INLINE void elements_of(divergence::JensenShannon, V p, V q, V u, V k, V& part, V& h) {
  const F d;
  const auto no_p = hn::Eq(p, hn::Zero(d)), no_q = hn::Eq(q, hn::Zero(d));
  const V rest = hn::Sub(hn::Set(d, 1.0f), k);
  V m_over_p, m_over_q;
  if (const float share = hn::GetLane(k); share >= 0.25f && share <= 0.75f) {
    // log(m / q) = log(m / p) - u: one logarithm does, that of m over the larger of the two, which
    // is between log k and 0. What the other loses is of the size of u, and weighs as e^-|u|. Near
    // u = 0 the difference loses 1 / k of its precision, so other shares take both logarithms.
    const auto p_leads = hn::Le(u, hn::Zero(d));
    const V leads =
        hn::Log1p(d, hn::Mul(hn::IfThenElse(p_leads, rest, k), hn::Expm1(d, hn::Neg(hn::Abs(u)))));
    m_over_p = hn::IfThenElse(p_leads, leads, hn::Add(leads, u));
    m_over_q = hn::IfThenElse(p_leads, hn::Sub(leads, u), leads);
  } else {
    m_over_p = hn::Log1p(d, hn::Mul(rest, hn::Expm1(d, u)));
    m_over_q = hn::Log1p(d, hn::Mul(k, hn::Expm1(d, hn::Neg(u))));
  }
  h = hn::IfThenZeroElse(no_q, hn::Neg(hn::Mul(hn::Mul(rest, q), m_over_q)));
  part = hn::Sub(h, hn::IfThenZeroElse(no_p, hn::Mul(hn::Mul(k, p), m_over_p)));
}
HWY_INLINE void elements_of(divergence::TotalVariation, V p, V q, V u, V, V& part, V& h) {
  const F d;
  // The sign is u's: the compiler may round q - p once instead of three times, and then equal
  // logits would differ.
  const V half = hn::Set(d, 0.5f);
  const auto equal = hn::Eq(u, hn::Zero(d));
  const V difference = hn::Sub(q, p);
  part = hn::IfThenZeroElse(equal, hn::Mul(half, hn::Abs(difference)));
  const V signed_q = hn::IfThenZeroElse(equal, hn::Mul(half, hn::CopySignToAbs(q, u)));
  h = hn::IfThenElse(hn::IsNaN(difference), difference, signed_q);  // a sign would hide a NaN
}
HWY_INLINE void elements_of(divergence::SkewKl, V p, V q, V u, V k, V& part, V& h) {
  const F d;
  const V one = hn::Set(d, 1.0f), rest = hn::Sub(one, k);
  const auto no_p = hn::Eq(p, hn::Zero(d));
  const V m_over_p = hn::Mul(rest, hn::Expm1(d, u));  // less 1
  part = hn::IfThenZeroElse(no_p, hn::Neg(hn::Mul(p, hn::Log1p(d, m_over_p))));
  h = hn::IfThenZeroElse(no_p, hn::Neg(hn::Div(hn::Mul(rest, q), hn::Add(one, m_over_p))));
}
HWY_INLINE void elements_of(divergence::SkewReverseKl, V, V q, V u, V k, V& part, V& h) {
  const F d;
  const V one = hn::Set(d, 1.0f), rest = hn::Sub(one, k);
  const auto no_q = hn::Eq(q, hn::Zero(d));
  const V m_over_q = hn::Mul(rest, hn::Expm1(d, hn::Neg(u)));  // less 1
  part = hn::IfThenZeroElse(no_q, hn::Neg(hn::Mul(q, hn::Log1p(d, m_over_q))));
  h = hn::Sub(part, hn::IfThenZeroElse(no_q, hn::Div(hn::Mul(q, k), hn::Add(one, m_over_q))));
}
template <class D>
concept HasVectors = requires(V v) {
  elements_of(D{}, v, v, v, v, v, v);
};

template <class D>
constexpr DivergenceOps kOpsOf = divergence_ops<D>();

struct DivergenceSums {
  double d = 0, h = 0;
};

/// Second pass of divergences other than the forward KL: sums their elements, and replaces et by h.
template <class D>
DivergenceSums diverge(const BlockRow& r, const BlockSums& sums) {
  const F d;
  const std::int64_t classes = r.args->classes;
  const V inv_tau = hn::Set(d, static_cast<float>(r.row.inv_tau));
  const V offset = hn::Set(d, static_cast<float>(hd_log(sums.s.sum) - hd_log(sums.t.sum)));
  const V max_s = hn::Set(d, static_cast<float>(sums.s.max)),
          max_t = hn::Set(d, static_cast<float>(sums.t.max));
  const V k = hn::Set(d, static_cast<float>(r.args->parameter));
  DivergenceSums total;
  for (std::int64_t b = 0; b * kRowBlock < classes; ++b) {
    const std::int64_t begin = b * kRowBlock;
    const std::int64_t n = classes - begin < kRowBlock ? classes - begin : kRowBlock;
    const BlockFactors f = factors_of(r, sums, b);
    const V to_q = hn::Set(d, static_cast<float>(f.s / sums.s.sum)),
            to_p = hn::Set(d, static_cast<float>(f.t / sums.t.sum));
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
    V sum_d = hn::Zero(d), sum_h = sum_d;
    for_each_vector(n, [&](std::int64_t v, const auto& load) HWY_ATTR {
      const V x = hn::Sub(load(r.s + begin), max_s), y = hn::Sub(load(r.t + begin), max_t);
      const V u = hn::MulSub(hn::Sub(x, y), inv_tau, offset);
      const V q = hn::Mul(hn::LoadU(d, r.es + begin + v), to_q);
      const V p = hn::Mul(hn::LoadU(d, r.et + begin + v), to_p);
      V part, h;
      elements_of(D{}, p, q, u, k, part, h);
      if (v + lanes > n) {  // beyond the end p and q are 0, but u is NaN
        const auto inside = hn::FirstN(d, static_cast<std::size_t>(n - v));
        part = hn::IfThenElseZero(inside, part);
        h = hn::IfThenElseZero(inside, h);
      }
      hn::StoreU(h, d, r.et + begin + v);
      sum_d = hn::Add(sum_d, part);
      sum_h = hn::Add(sum_h, h);
    });
    total.d += sum_of(sum_d);
    total.h += sum_of(sum_h);
  }
  return total;
}

/// diverge() without a vector form: p, q and their logarithms in vectors, the elements by the
/// functor's own loop, a few hundred at a time (the arrays stay in the first level cache).
DivergenceSums diverge_by_element(const BlockRow& r, const BlockSums& sums,
                                  const DivergenceOps& ops) {
  const F d;
  constexpr std::int64_t kRun = 256;
  static_assert(kRowBlock % kRun == 0 && kRun % static_cast<std::int64_t>(hn::MaxLanes(F())) == 0);
  HWY_ALIGN float p[kRun], q[kRun], log_p[kRun], log_q[kRun], part[kRun], h[kRun];
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t classes = r.args->classes;
  const V inv_tau = hn::Set(d, static_cast<float>(r.row.inv_tau));
  const V max_s = hn::Set(d, static_cast<float>(sums.s.max)),
          max_t = hn::Set(d, static_cast<float>(sums.t.max)),
          log_s = hn::Set(d, static_cast<float>(hd_log(sums.s.sum))),
          log_t = hn::Set(d, static_cast<float>(hd_log(sums.t.sum)));
  DivergenceSums total;
  for (std::int64_t begin = 0; begin < classes; begin += kRun) {
    const std::int64_t n = classes - begin < kRun ? classes - begin : kRun;
    const BlockFactors f = factors_of(r, sums, begin / kRowBlock);
    const V to_q = hn::Set(d, static_cast<float>(f.s / sums.s.sum)),
            to_p = hn::Set(d, static_cast<float>(f.t / sums.t.sum));
    for_each_vector(n, [&](std::int64_t v, const auto& load) HWY_ATTR {
      const V x = hn::Mul(hn::Sub(load(r.s + begin), max_s), inv_tau),
              y = hn::Mul(hn::Sub(load(r.t + begin), max_t), inv_tau);
      hn::Store(hn::Mul(hn::LoadU(d, r.es + begin + v), to_q), d, q + v);
      hn::Store(hn::Mul(hn::LoadU(d, r.et + begin + v), to_p), d, p + v);
      hn::Store(hn::Sub(x, log_s), d, log_q + v);
      hn::Store(hn::Sub(y, log_t), d, log_p + v);
    });
    ops.block({p, q, log_p, log_q, static_cast<float>(r.args->parameter), n, part, h});
    for (std::int64_t v = n; v < n + lanes && v < kRun; ++v) part[v] = h[v] = 0;
    V sum_d = hn::Zero(d), sum_h = sum_d;
    for (std::int64_t v = 0; v < n; v += lanes) {
      const V own = hn::Load(d, h + v);
      hn::StoreU(own, d, r.et + begin + v);
      sum_d = hn::Add(hn::Load(d, part + v), sum_d);
      sum_h = hn::Add(sum_h, own);
    }
    total.d += sum_of(sum_d);
    total.h += sum_of(sum_h);
  }
  return total;
}

template <TauKind kTau, bool kTeacher, bool kOnes, bool kStats>
double row_loss(const BlockRow& r, PendingGradient& pending) {
  const DistillLossArgs& a = *r.args;
  const double at_s = r.row.target >= 0 ? static_cast<double>(r.s[r.row.target]) : 0;
  const double at_t = kTeacher && r.row.target >= 0 ? static_cast<double>(r.t[r.row.target]) : 0;
  BlockSums sums;
  sum_row<kTau, kTeacher, kOnes, kStats>(r, sums, pending);
  pending.is_due = false;

  const bool other = kTeacher && a.divergence != Divergence::kForwardKl;
  DivergenceSums divergence;
  if (kTeacher && sums.s.sum != 0 && sums.t.sum != 0) {
    if (a.divergence.outside != nullptr)
      divergence = diverge_by_element(r, sums, *a.divergence.outside);
    else if (other)
      dispatch_divergence(a.divergence.built_in, [&]<Divergence kind>() HWY_ATTR {
        using D = typename FunctorOf<kind>::Type;
        if constexpr (HasVectors<D>)
          divergence = diverge<D>(r, sums);
        else
          divergence = diverge_by_element(r, sums, kOpsOf<D>);
      });
    else
      divergence.d =
          sums.kd * r.row.inv_tau / sums.t.sum + (hd_log(sums.s.sum) - hd_log(sums.t.sum));
  }
  RowResult<double> result =
      finish_row(r.row, tau_power_of(a), r.inv_z, sums.s, kTeacher, sums.t, divergence.d, at_s);
  if (kStats || (!kTeacher && a.statistics))
    store_statistics(a, r.index, r.row, result, sums.s, kTeacher, sums.t, at_t);
  if (!r.ds) return result.loss;
  if (other) {  // kd_weight (h - q sum h)
    result.kd_q = result.kd_weight == 0 ? 0 : -result.kd_weight * divergence.h / sums.s.sum;
    result.kd_p = -result.kd_weight;
  }
  if (result.ce_weight == 0 && result.kd_weight == 0)
    fill_row(r.ds, a.classes, 0.0f);
  else
    pending = {true, other, kTau, r, sums, result};
  return result.loss;
}

template <bool kTeacher, bool kOnes, bool kStats>
double row_by_tau(const BlockRow& r, PendingGradient& pending) {
  if (!kTeacher || r.row.tau == 1)
    return row_loss<TauKind::kOne, kTeacher, kOnes, kStats>(r, pending);
  if (r.row.tau == 2) return row_loss<TauKind::kTwo, kTeacher, kOnes, kStats>(r, pending);
  if (r.row.tau == 4) return row_loss<TauKind::kFour, kTeacher, kOnes, kStats>(r, pending);
  return row_loss<TauKind::kOther, kTeacher, kOnes, kStats>(r, pending);
}

double BlockRowLoss(const BlockRow& r, PendingGradient& pending) {
  if (!r.has_teacher) {  // labels alone: tau has no say
    BlockRow at_one = r;
    at_one.row.tau = at_one.row.inv_tau = 1;
    return row_by_tau<false, true, false>(at_one, pending);
  }
  if (r.args->statistics) return row_by_tau<true, true, true>(r, pending);
  return r.ones ? row_by_tau<true, true, false>(r, pending)
                : row_by_tau<true, false, false>(r, pending);
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels::distill
HWY_AFTER_NAMESPACE();

#include "kernels/distill_loss/distill_loss_lanes-inl.h"

#if HWY_ONCE
namespace retort::kernels::distill {
HWY_EXPORT(LaneRows);
HWY_EXPORT(LaneCount);
std::uint32_t lane_rows(LaneGroup& group) { return HWY_DYNAMIC_DISPATCH(LaneRows)(group); }
std::int64_t lane_count() { return HWY_DYNAMIC_DISPATCH(LaneCount)(); }
HWY_EXPORT(ExpArray);
HWY_EXPORT(BlockRowLoss);
HWY_EXPORT(FinishGradient);
void exp_nonpositive(const float* x, float* y, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(ExpArray)(x, y, n);
}
double block_row(const BlockRow& row, PendingGradient& pending) {
  return HWY_DYNAMIC_DISPATCH(BlockRowLoss)(row, pending);
}
void finish_gradient(PendingGradient& pending) { HWY_DYNAMIC_DISPATCH(FinishGradient)(pending); }
void flush_rows() { hwy::FlushStream(); }
}  // namespace retort::kernels::distill
#endif
