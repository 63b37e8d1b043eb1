// Rows of few classes: a vector's lanes go over rows, not over classes.
//
// Note [Lanes across rows]
//   A row of 2, 10 or 100 classes fills a vector badly, and what is done once per row (logarithms,
//   divisions, statistics) costs more than the classes. Here a group of as many rows as a vector
//   has lanes is transposed into working memory, class after class, and everything is done for all
//   of them at once, in double where block_row() uses double.
//
//   The results are those of block_row(): sums over classes are taken in its order (a sum of floats
//   for each lane that block_row would have used, those in double by lane), so exponentials, sums
//   and gradients have the same bits. Only logarithms, and so losses and statistics, may differ in
//   the last bits of a double before they are rounded to float.
//
//   Rows with a NaN, an infinity other than -inf, or -inf alone are left to block_row().
//
// Included by distill_loss_cpu_simd.cpp, behind what it shares with it.
#if defined(RETORT_DISTILL_LOSS_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RETORT_DISTILL_LOSS_LANES_INL_H_
#undef RETORT_DISTILL_LOSS_LANES_INL_H_
#else
#define RETORT_DISTILL_LOSS_LANES_INL_H_
#endif

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernels/common/exp-inl.h"
#include "kernels/distill_loss/distill_loss_lanes.h"
#include "kernels/distill_loss/distill_loss_vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels::distill {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::int64_t kLanes = static_cast<std::int64_t>(hn::MaxLanes(F()));
static_assert(kLanes <= kMostLanes);
using Doubles = hn::ScalableTag<double>;
constexpr std::int64_t kHalf = static_cast<std::int64_t>(hn::MaxLanes(Doubles()));
using VD = hn::Vec<Doubles>;

// ----------------------------------------------------------------------------------- transposing

#if HWY_TARGET != HWY_SCALAR
/// Four floats from column v on of rows j, j + 4, ...
template <class D>
HWY_INLINE hn::Vec<D> four_of_rows(D d, const float* const* row, std::int64_t v) {
  if constexpr (hn::MaxLanes(D()) <= 4) {
    return hn::LoadU(d, row[0] + v);
  } else {
    const hn::Half<D> half;
    constexpr std::int64_t kRows = static_cast<std::int64_t>(hn::MaxLanes(half));
    return hn::Combine(d, four_of_rows(half, row + kRows, v), four_of_rows(half, row, v));
  }
}
/// Transposes 4 x 4 in every block of four lanes.
HWY_INLINE void transpose_blocks(V& r0, V& r1, V& r2, V& r3) {
  const F d;
  const hn::RepartitionToWide<F> pairs;
  const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, r0, r1)),
             low23 = hn::BitCast(pairs, hn::InterleaveLower(d, r2, r3)),
             high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, r0, r1)),
             high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, r2, r3));
  r0 = hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23));
  r1 = hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23));
  r2 = hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23));
  r3 = hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23));
}
#endif

/// to[v * kLanes + lane] = row[lane][v].
HWY_INLINE void load_transposed(const float* const* row, std::int64_t classes, float* to) {
  std::int64_t v = 0;
#if HWY_TARGET != HWY_SCALAR
  const F d;
  for (; v + 4 <= classes; v += 4) {
    V r0 = four_of_rows(d, row, v), r1 = four_of_rows(d, row + 1, v),
      r2 = four_of_rows(d, row + 2, v), r3 = four_of_rows(d, row + 3, v);
    transpose_blocks(r0, r1, r2, r3);
    hn::Store(r0, d, to + v * kLanes);
    hn::Store(r1, d, to + (v + 1) * kLanes);
    hn::Store(r2, d, to + (v + 2) * kLanes);
    hn::Store(r3, d, to + (v + 3) * kLanes);
  }
#endif
  for (; v < classes; ++v)
    for (std::int64_t lane = 0; lane < kLanes; ++lane) to[v * kLanes + lane] = row[lane][v];
}

/// row[lane][v] = from[v * kLanes + lane] for the lanes in `active`.
HWY_INLINE void store_transposed(const float* from, std::int64_t classes, std::uint32_t active,
                                 float* const* row) {
  std::int64_t v = 0;
#if HWY_TARGET != HWY_SCALAR
  const F d;
  for (; v + 4 <= classes; v += 4) {
    V r[4];
    for (std::int64_t j = 0; j < 4; ++j) r[j] = hn::Load(d, from + (v + j) * kLanes);
    transpose_blocks(r[0], r[1], r[2], r[3]);
    HWY_ALIGN float block[4 * kLanes];
    for (std::int64_t j = 0; j < 4; ++j) hn::Store(r[j], d, block + j * kLanes);
    for (std::int64_t lane = 0; lane < kLanes; ++lane)  // lane 4 i + j is block i of r[j]
      if (active >> lane & 1u)
        __builtin_memcpy(row[lane] + v, block + lane % 4 * kLanes + lane / 4 * 4,
                         4 * sizeof(float));
  }
#endif
  for (; v < classes; ++v)
    for (std::int64_t lane = 0; lane < kLanes; ++lane)
      if (active >> lane & 1u) row[lane][v] = from[v * kLanes + lane];
}

// ----------------------------------------------------------------------------------- sums

/// A sum over classes of kCount values each, in block_row()'s order: values(v, out) gives those of
/// class v; add(sum, value) adds one. Into to[k], doubles of every lane.
template <int kCount, class Values>
HWY_INLINE void sum_classes(std::int64_t classes, double (*to)[kMostLanes], const Values& add) {
  const F d;
  const Doubles dd;
  [[maybe_unused]] const hn::Rebind<float, Doubles> half;
  VD total[kCount][2];
  for (auto& t : total) t[0] = t[1] = hn::Zero(dd);
  for (std::int64_t first = 0; first < kLanes && first < classes; ++first) {
    V sum[kCount];
    for (V& s : sum) s = hn::Zero(d);
    for (std::int64_t v = first; v < classes; v += kLanes) add(v, sum);
    for (int k = 0; k < kCount; ++k) {
#if HWY_TARGET == HWY_SCALAR
      total[k][0] = hn::Add(total[k][0], hn::PromoteTo(dd, sum[k]));
#else
      total[k][0] = hn::Add(total[k][0], hn::PromoteTo(dd, hn::LowerHalf(half, sum[k])));
      total[k][1] = hn::Add(total[k][1], hn::PromoteTo(dd, hn::UpperHalf(half, sum[k])));
#endif
    }
  }
  for (int k = 0; k < kCount; ++k)
    for (std::int64_t h = 0; h * kHalf < kLanes; ++h) hn::Store(total[k][h], dd, to[k] + h * kHalf);
}

/// Of all lanes, as LogitSums and more; HWY_ALIGN for whole vectors of doubles.
struct HWY_ALIGN_MAX LaneSums {
  double max_s[kMostLanes], max_t[kMostLanes], next_t[kMostLanes];
  double sums[6][kMostLanes];  // kS .. kKd
  double log_s[kMostLanes], log_t[kMostLanes], log_s1[kMostLanes], log_t1[kMostLanes];
  double divergence[2][kMostLanes];  // sum d, sum h
  double ce_scale[kMostLanes], kd_q[kMostLanes], kd_p[kMostLanes];
  float at[kMostLanes];
  std::int32_t argmax_s[kMostLanes], argmax_t[kMostLanes];
};
enum { kS, kS1, kT, kT1, kDot, kKd };

/// The largest of every lane, its lowest index, and the second largest.
struct Top {
  V max, next, at;
};
template <bool kNext>
HWY_INLINE Top top_of(const float* x, std::int64_t classes, hn::Mask<F>& sound) {
  const F d;
  Top top{hn::Set(d, lowest<float>()), hn::Set(d, lowest<float>()), hn::Set(d, -1.0f)};
  const V infinite = hn::Set(d, infinity<float>());
  for (std::int64_t v = 0; v < classes; ++v) {
    const V value = hn::Load(d, x + v * kLanes);
    sound = hn::And(sound, hn::Lt(value, infinite));  // NaN is not
    const auto larger = hn::Gt(value, top.max);
    if (kNext) top.next = hn::IfThenElse(larger, top.max, hn::Max(top.next, value));
    top.at = hn::IfThenElse(larger, hn::Set(d, static_cast<float>(v)), top.at);
    top.max = hn::Max(top.max, value);
  }
  sound = hn::And(sound, hn::Ge(top.at, hn::Zero(d)));  // not -inf alone
  return top;
}

HWY_INLINE void store_doubles(V value, double* to) {
  const F d;
  HWY_ALIGN float lanes[kLanes];
  hn::Store(value, d, lanes);
  for (std::int64_t k = 0; k < kLanes; ++k) to[k] = static_cast<double>(lanes[k]);
}
HWY_INLINE V load_floats(const double* from) {
  HWY_ALIGN float lanes[kLanes];
  for (std::int64_t k = 0; k < kLanes; ++k) lanes[k] = static_cast<float>(from[k]);
  return hn::Load(F(), lanes);
}

/// y[lane] = log x[lane].
HWY_INLINE void log_lanes(const double* x, double* y) {
  const Doubles dd;
  for (std::int64_t k = 0; k < kLanes; k += kHalf)
    hn::Store(hn::Log(dd, hn::Load(dd, x + k)), dd, y + k);
}

/// Divergences other than the forward KL: sums their elements, and replaces et by h.
template <Divergence kind>
void diverge_lanes(const LaneGroup& g, const LaneArrays& a, LaneSums& s) {
  const F d;
  const V inv_tau = load_floats(g.inv_tau);
  HWY_ALIGN_MAX double offset_of[kMostLanes], to_q_of[kMostLanes], to_p_of[kMostLanes];
  for (std::int64_t k = 0; k < kLanes; ++k) {
    offset_of[k] = s.log_s[k] - s.log_t[k];
    to_q_of[k] = 1 / s.sums[kS][k];
    to_p_of[k] = 1 / s.sums[kT][k];
  }
  const V offset = load_floats(offset_of), to_q = load_floats(to_q_of), to_p = load_floats(to_p_of);
  const V max_s = load_floats(s.max_s), max_t = load_floats(s.max_t);
  const V k = hn::Set(d, static_cast<float>(g.args->parameter));
  sum_classes<2>(g.args->classes, s.divergence, [&](std::int64_t v, V(&sum)[2]) HWY_ATTR {
    const std::int64_t at = v * kLanes;
    const V x = hn::Sub(hn::Load(d, a.s + at), max_s), y = hn::Sub(hn::Load(d, a.t + at), max_t);
    const V u = hn::MulSub(hn::Sub(x, y), inv_tau, offset);
    const V q = hn::Mul(hn::Load(d, a.es + at), to_q), p = hn::Mul(hn::Load(d, a.et + at), to_p);
    V part, h;
    elements_of(typename FunctorOf<kind>::Type{}, p, q, u, k, part, h);
    hn::Store(h, d, a.et + at);
    sum[0] = hn::Add(sum[0], part);
    sum[1] = hn::Add(sum[1], h);
  });
}

// ----------------------------------------------------------------------------------- a group

template <TauKind kTau, bool kTeacher>
HWY_INLINE void exponentials(const LaneGroup& g, const LaneArrays& a, V max_s, V max_t,
                             LaneSums& s) {
  const F d;
  HWY_ALIGN float scale_of[kLanes];
  for (std::int64_t k = 0; k < kLanes; ++k)  // without a teacher, tau has no say
    scale_of[k] = (kTeacher ? static_cast<float>(g.inv_tau[k]) : 1.0f) * kLog2E;
  const V scale = hn::Load(d, scale_of);
  // Two classes in step where there are two; the sums follow in their own order.
  constexpr int kLogits = kTeacher ? 2 : 1;
  const auto step = [&]<int kClasses>(std::int64_t v) HWY_ATTR {
    constexpr int kAll = kLogits * kClasses;
    V at[kAll], e[kAll];
    hn::Mask<F> vanishes[kAll];
    for (int k = 0; k < kClasses; ++k) {
      at[kLogits * k] = hn::Sub(hn::Load(d, a.s + (v + k) * kLanes), max_s);
      if constexpr (kTeacher)
        at[kLogits * k + 1] = hn::Sub(hn::Load(d, a.t + (v + k) * kLanes), max_t);
    }
    exp2_scaled<kAll>(d, at, scale, e, vanishes);
    for (int k = 0; k < kClasses; ++k) {
      const std::int64_t to = (v + k) * kLanes;
      hn::Store(e[kLogits * k], d, a.es + to);
      if constexpr (kTeacher) hn::Store(e[kLogits * k + 1], d, a.et + to);
      if constexpr (kTau == TauKind::kOther)
        hn::Store(one_from_tau<kTau>(e[kLogits * k], at[kLogits * k]), d, a.e1 + to);
    }
  };
  const std::int64_t classes = g.args->classes;
  std::int64_t v = 0;
  for (; v + 2 <= classes; v += 2) step.template operator()<2>(v);
  if (v < classes) step.template operator()<1>(v);

  const auto ones_of = [&](V e, std::int64_t at) HWY_ATTR {
    return kTau == TauKind::kOther ? hn::Load(d, a.e1 + at) : one_from_tau<kTau>(e, e);
  };
  if constexpr (!kTeacher) {
    sum_classes<2>(classes, s.sums, [&](std::int64_t c, V(&sum)[2]) HWY_ATTR {
      const V e = hn::Load(d, a.es + c * kLanes);
      sum[kS] = hn::Add(sum[kS], e);
      sum[kS1] = hn::Add(sum[kS1], ones_of(e, c * kLanes));
    });
  } else {
    sum_classes<6>(classes, s.sums, [&](std::int64_t c, V(&sum)[6]) HWY_ATTR {
      const std::int64_t at = c * kLanes;
      const V e = hn::Load(d, a.es + at), f = hn::Load(d, a.et + at);
      const V x = hn::Sub(hn::Load(d, a.s + at), max_s), y = hn::Sub(hn::Load(d, a.t + at), max_t);
      sum[kS] = hn::Add(sum[kS], e);
      sum[kS1] = hn::Add(sum[kS1], ones_of(e, at));
      sum[kT] = hn::Add(sum[kT], f);
      // Where f is 0, the difference may be infinite or NaN: it counts 0.
      const auto none = hn::Eq(f, hn::Zero(d));
      sum[kKd] = hn::MulAdd(f, hn::IfThenZeroElse(none, hn::Sub(y, x)), sum[kKd]);
      const V one = one_from_tau<kTau>(f, y);
      sum[kT1] = hn::Add(sum[kT1], one);
      sum[kDot] = hn::MulAdd(one, hn::IfThenZeroElse(none, y), sum[kDot]);
    });
  }
}

/// Values of all lanes, rounded to float, to rows first + lane of a statistic.
HWY_INLINE void store_statistic(const LaneGroup& g, int which, std::int64_t lane, VD value) {
  const hn::Rebind<float, Doubles> half;
  const auto rounded = hn::DemoteTo(half, value);
  float* const to = g.args->statistics + which * g.args->rows + g.first + lane;
  const std::uint32_t all = (1u << kHalf) - 1, here = g.active >> lane & all;
  if (here == all) return hn::StoreU(rounded, half, to);
  HWY_ALIGN float lanes[kHalf];
  hn::Store(rounded, half, lanes);
  for (std::int64_t k = 0; k < kHalf; ++k)
    if (here >> k & 1u) to[k] = lanes[k];
}

/// finish_row() and store_statistics() of lanes [lane, lane + kHalf).
template <bool kTeacher>
HWY_INLINE void finish_lanes(const LaneGroup& g, LaneSums& s, std::int64_t lane) {
  const Doubles dd;
  const auto at = [&](const double* x) HWY_ATTR { return hn::Load(dd, x + lane); };
  const VD zero = hn::Zero(dd), one = hn::Set(dd, 1.0);
  const VD sum_s = at(s.sums[kS]), sum_s1 = at(s.sums[kS1]), ce_weight = at(g.ce_weight),
           kd_weight = at(g.kd_weight);
  const auto labelled = hn::Ge(at(g.target), zero), has_ce = hn::Ne(ce_weight, zero);
  const bool forward = g.args->divergence.built_in == Divergence::kForwardKl;
  const VD ce =
      hn::IfThenElseZero(labelled, hn::Sub(at(s.log_s1), hn::Sub(at(g.at_s), at(s.max_s))));
  VD loss = hn::IfThenElseZero(has_ce, hn::Mul(ce_weight, ce));
  hn::Store(hn::IfThenElseZero(has_ce, hn::Div(ce_weight, sum_s1)), dd, s.ce_scale + lane);
  VD kd = zero;
  if constexpr (kTeacher) {
    const auto has_kd = hn::Ne(kd_weight, zero);
    const VD sum_t = at(s.sums[kT]), tau = at(g.tau);
    const VD d = forward ? hn::Add(hn::Div(hn::Mul(at(s.sums[kKd]), at(g.inv_tau)), sum_t),
                                   hn::Sub(at(s.log_s), at(s.log_t)))
                         : at(s.divergence[0]);
    const std::int32_t power = tau_power_of(*g.args);
    const VD of_d = power == 2 ? hn::Mul(tau, tau) : power == 1 ? tau : hn::Set(dd, 1.0);
    const VD of_gradient = power == 2 ? tau : power == 1 ? hn::Set(dd, 1.0) : at(g.inv_tau);
    kd = hn::Mul(of_d, d);
    loss = hn::Add(loss, hn::IfThenElseZero(has_kd, hn::Mul(kd_weight, kd)));
    const VD factor = hn::Mul(kd_weight, of_gradient);
    const VD kd_q = forward ? hn::Div(factor, sum_s)
                            : hn::Div(hn::Mul(hn::Neg(factor), at(s.divergence[1])), sum_s);
    const VD kd_p = forward ? hn::Div(factor, sum_t) : hn::Neg(factor);
    hn::Store(hn::IfThenElseZero(has_kd, kd_q), dd, s.kd_q + lane);
    hn::Store(hn::IfThenElseZero(has_kd, kd_p), dd, s.kd_p + lane);
  }
  HWY_ALIGN double losses[kHalf];
  hn::Store(loss, dd, losses);
  for (std::int64_t k = 0; k < kHalf; ++k)
    if (g.active >> (lane + k) & 1u) g.row_loss[lane + k] = losses[k];
  if (!g.args->statistics) return;
  store_statistic(g, kStatCe, lane, ce);
  store_statistic(g, kStatKd, lane, kd);
  store_statistic(g, kStatStudentConfidence, lane, hn::Div(one, sum_s1));
  if constexpr (!kTeacher) {
    for (int k = kStatTeacherConfidence; k < kRowStatistics; ++k) store_statistic(g, k, lane, zero);
  } else {
    const VD sum_t1 = at(s.sums[kT1]), log_sum = at(s.log_t1), max = at(s.max_t);
    const VD inverse = hn::Div(one, sum_t1);
    store_statistic(g, kStatTeacherConfidence, lane, inverse);
    store_statistic(g, kStatTeacherLogConfidence, lane, hn::Neg(log_sum));
    store_statistic(g, kStatTeacherMaxLogit, lane, max);
    const VD below = hn::Exp(dd, hn::Sub(at(s.next_t), max));
    store_statistic(g, kStatTeacherMargin, lane, hn::Div(hn::Sub(one, below), sum_t1));
    store_statistic(g, kStatTeacherEntropy, lane,
                    hn::Sub(log_sum, hn::Div(at(s.sums[kDot]), sum_t1)));
    const VD log_p = hn::Sub(hn::Sub(at(g.at_t), max), log_sum);
    store_statistic(g, kStatTeacherPTrue, lane, hn::IfThenElseZero(labelled, hn::Exp(dd, log_p)));
    store_statistic(g, kStatTeacherLogPTrue, lane, hn::IfThenElseZero(labelled, log_p));
  }
}

template <bool kTeacher>
HWY_INLINE void store_indices(const LaneGroup& g, const LaneSums& s) {
  const DistillLossArgs& a = *g.args;
  for (std::int64_t k = 0; k < kLanes; ++k) {
    if (!(g.active >> k & 1u)) continue;
    const std::int64_t i = g.first + k;
    const auto target = static_cast<std::int32_t>(g.target[k]);
    a.argmax[i] = s.argmax_s[k];
    a.correct[i] = target >= 0 && s.argmax_s[k] == target;
    a.argmax[a.rows + i] = kTeacher ? s.argmax_t[k] : -1;
    a.correct[a.rows + i] = kTeacher && target >= 0 && s.argmax_t[k] == target;
  }
}

/// ds = ce_scale e1 + kd_q es - kd_p et, into the student's logits' place.
template <TauKind kTau, bool kTeacher>
HWY_INLINE void gradient_lanes(const LaneGroup& g, const LaneArrays& a, const LaneSums& s) {
  const F d;
  const V ce = load_floats(s.ce_scale), kd_q = load_floats(s.kd_q), kd_p = load_floats(s.kd_p);
  const V kd_weight = load_floats(g.kd_weight);
  const auto has_kd = hn::Ne(kd_weight, hn::Zero(d));
  for (std::int64_t v = 0; v < g.args->classes; ++v) {
    const std::int64_t at = v * kLanes;
    const V e = hn::Load(d, a.es + at);
    V gradient = hn::Zero(d);
    if constexpr (kTeacher)
      gradient =
          hn::IfThenElseZero(has_kd, hn::NegMulAdd(kd_p, hn::Load(d, a.et + at), hn::Mul(kd_q, e)));
    gradient = hn::MulAdd(
        ce, kTau == TauKind::kOther ? hn::Load(d, a.e1 + at) : one_from_tau<kTau>(e, e), gradient);
    hn::Store(gradient, d, a.s + at);
  }
  for (std::int64_t k = 0; k < kLanes; ++k) {  // a difference that may cancel: in double
    const auto y = static_cast<std::int64_t>(g.target[k]);
    if (y < 0 || g.ce_weight[k] == 0) continue;
    const std::int64_t at = y * kLanes + k;
    const auto exponential = static_cast<double>(a.es[at]);
    const double one = kTau == TauKind::kOne   ? exponential
                       : kTau == TauKind::kTwo ? exponential * exponential
                       : kTau == TauKind::kFour
                           ? exponential * exponential * exponential * exponential
                           : static_cast<double>(a.e1[at]);
    double gradient = s.ce_scale[k] * one - g.ce_weight[k];
    if (kTeacher && g.kd_weight[k] != 0)
      gradient += s.kd_q[k] * exponential - s.kd_p[k] * static_cast<double>(a.et[at]);
    a.s[at] = static_cast<float>(gradient);
  }
}

template <TauKind kTau, bool kTeacher>
std::uint32_t lane_rows(LaneGroup& g) {
  const F d;
  const std::int64_t classes = g.args->classes;
  const LaneArrays a(g.space, classes);
  LaneSums s;
  load_transposed(g.s, classes, a.s);
  if (kTeacher) load_transposed(g.t, classes, a.t);
  auto sound = hn::FirstN(d, static_cast<std::size_t>(kLanes));
  const Top top_s = top_of<false>(a.s, classes, sound);
  const Top top_t = kTeacher ? top_of<true>(a.t, classes, sound) : top_s;
  // Lanes that are left to others.
  HWY_ALIGN float is_sound[kLanes];
  hn::Store(hn::IfThenElseZero(sound, hn::Set(d, 1.0f)), d, is_sound);
  std::uint32_t left = 0;
  for (std::int64_t k = 0; k < kLanes; ++k)
    if (is_sound[k] == 0 && g.active >> k & 1u) left |= 1u << k;
  g.active &= ~left;
  if (g.active == 0) return left;

  store_doubles(top_s.max, s.max_s);
  const hn::RebindToSigned<F> di;
  hn::Store(hn::ConvertTo(di, top_s.at), di, s.argmax_s);
  if constexpr (kTeacher) {
    store_doubles(top_t.max, s.max_t);
    store_doubles(top_t.next, s.next_t);
    hn::Store(hn::ConvertTo(di, top_t.at), di, s.argmax_t);
  }
  exponentials<kTau, kTeacher>(g, a, top_s.max, top_t.max, s);
  log_lanes(s.sums[kS1], s.log_s1);
  if constexpr (kTeacher) {
    log_lanes(s.sums[kT1], s.log_t1);
    if constexpr (kTau == TauKind::kOne) {
      __builtin_memcpy(s.log_s, s.log_s1, sizeof s.log_s);
      __builtin_memcpy(s.log_t, s.log_t1, sizeof s.log_t);
    } else {
      log_lanes(s.sums[kS], s.log_s);
      log_lanes(s.sums[kT], s.log_t);
    }
    if (g.args->divergence.built_in != Divergence::kForwardKl)
      dispatch_divergence(g.args->divergence.built_in, [&]<Divergence kind>() HWY_ATTR {
        if constexpr (kind != Divergence::kForwardKl) diverge_lanes<kind>(g, a, s);
      });
  }
  for (std::int64_t lane = 0; lane < kLanes; lane += kHalf) finish_lanes<kTeacher>(g, s, lane);
  if (g.args->statistics) store_indices<kTeacher>(g, s);
  if (!g.gradient) return left;
  if constexpr (!kTeacher)
    for (std::int64_t k = 0; k < kLanes; ++k) s.kd_q[k] = s.kd_p[k] = 0;
  gradient_lanes<kTau, kTeacher>(g, a, s);
  store_transposed(a.s, classes, g.active, g.ds);
  return left;
}

std::uint32_t LaneRows(LaneGroup& g) {
  if (!g.teacher) return lane_rows<TauKind::kOne, false>(g);
  switch (g.tau_kind) {
    case TauKind::kOne: return lane_rows<TauKind::kOne, true>(g);
    case TauKind::kTwo: return lane_rows<TauKind::kTwo, true>(g);
    case TauKind::kFour: return lane_rows<TauKind::kFour, true>(g);
    case TauKind::kOther: break;
  }
  return lane_rows<TauKind::kOther, true>(g);
}

std::int64_t LaneCount() { return kLanes; }

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels::distill
HWY_AFTER_NAMESPACE();

#endif  // include guard that flips with the target
