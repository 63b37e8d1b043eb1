// Arithmetic of the distillation loss that CPU and CUDA share: what a row's parameters are, and what
// follows from a row's sums and its divergence (divergence.h).
#pragma once
#if !defined(__CUDACC_RTC__)
#include <cmath>
#endif
#include <cstdint>

#include "kernels/common/hd.h"
#include "kernels/distill_loss/distill_loss.h"

namespace retort::kernels::distill {
using namespace divergence;

/// A finite number below every finite logit: the maximum of nothing. (-inf would make NaN.)
template <class A>
RETORT_HD A lowest() {
  return sizeof(A) == 4 ? static_cast<A>(-3.402823466e38f)
                        : static_cast<A>(-1.7976931348623157e308);
}
template <class A>
RETORT_HD A infinity() {
  return static_cast<A>(float_from_bits(0x7f800000u));
}
template <class A>
RETORT_HD A not_a_number() {
  return static_cast<A>(float_from_bits(0x7fc00000u));
}
template <class A>
RETORT_HD bool is_finite(A x) {
  return x - x == A(0);  // NaN for both
}

// ---------------------------------------------------------------------------------- parameters

enum class RowState : std::uint8_t { kCounts, kIgnored, kInvalid };

/// What one row is told. A = float or double.
template <class A>
struct Row {
  RowState state;
  std::int32_t target;  // -1: none
  A tau, inv_tau;
  A ce_weight;  // w (1 - lambda): times 1/Z is the coefficient of CE
  A kd_weight;  // w lambda: times tau^n / Z is the coefficient of D
};

/// Of DistillLossArgs or CountRowsArgs.
template <class Args>
RETORT_HD bool is_ignored(const Args& a, std::int64_t i) {
  return (a.mask && a.mask[i] == 0) || (a.targets && a.targets[i] == a.ignore_index);
}

template <class A>
RETORT_HD Row<A> row_of(const DistillLossArgs& a, std::int64_t i) {
  Row<A> r{RowState::kIgnored, -1, A(1), A(1), A(0), A(0)};
  if (is_ignored(a, i)) return r;
  const std::int64_t sample = a.sample_of_row ? a.sample_of_row[i] : i;
  if (a.sample_of_row && (sample < 0 || sample >= a.samples)) {
    r.state = RowState::kInvalid;
    return r;
  }
  if (a.targets) r.target = a.targets[i];
  if (a.temperature) r.tau = static_cast<A>(a.temperature[sample * a.temperature_stride]);
  const A lambda =
      a.lambda ? static_cast<A>(a.lambda[sample * a.lambda_stride]) : (a.teacher ? A(1) : A(0));
  const A weight = a.weights ? static_cast<A>(a.weights[sample * a.weights_stride]) : A(1);
  const bool target_ok = !a.targets || (r.target >= 0 && r.target < a.classes);
  const bool finite = is_finite(r.tau) && is_finite(lambda) && is_finite(weight);
  if (!target_ok || !finite || !(r.tau > A(0)) || (!a.teacher && lambda != A(0))) {
    r.state = RowState::kInvalid;
    return r;
  }
  r.state = RowState::kCounts;
  r.inv_tau = A(1) / r.tau;
  r.ce_weight = a.targets ? weight * (A(1) - lambda) : A(0);
  r.kd_weight = a.teacher ? weight * lambda : A(0);
  return r;
}

// ----------------------------------------------------------------------------------- row sums

/// Sums over one row of logits x. Empty is the state before any element.
template <class A>
struct LogitSums {
  A max = lowest<A>();
  A sum = A(0);              // sum exp((x - max) / tau)
  A sum1 = A(0);             // sum exp(x - max)
  A dot1 = A(0);             // sum exp(x - max) (x - max)
  A next = lowest<A>();      // second largest
  std::int32_t argmax = -1;  // lowest index of the largest
};

/// What the gradient pass needs: ds[v] = ce_scale e1_s[v] + kd_q e_s[v] - kd_p e_t[v], and
/// ds[target] -= ce_weight; e: exp((x - max) / tau), e1 at tau = 1.
template <class A>
struct RowResult {
  A ce, kd;     // kd = tau^n D
  A loss;       // the row's part of the total
  A ce_weight;  // coefficient of CE, 1/Z included; 0: no such gradient
  A ce_scale;
  A kd_weight;  // coefficient of h - q sum h, tau^(n - 1) / Z included; 0: no such gradient
  A kd_q, kd_p;
};

/// tau^(n - 1): what multiplies a divergence's gradient. Times tau: what multiplies itself.
template <class A>
RETORT_HD A tau_of_gradient(const Row<A>& row, int tau_power) {
  return tau_power == 2 ? row.tau : tau_power == 1 ? A(1) : row.inv_tau;
}
template <class A>
RETORT_HD A tau_of_divergence(const Row<A>& row, int tau_power) {
  return tau_power == 2 ? row.tau * row.tau : tau_power == 1 ? row.tau : A(1);
}

/// From the sums of both rows and D to the loss and the factors of the gradient. `teacher` is
/// looked at only if has_teacher. x_target: the student's logit at the target. tau_power: n.
template <class A>
RETORT_HD RowResult<A> finish_row(const Row<A>& row, int tau_power, A inv_z,
                                  const LogitSums<A>& student, bool has_teacher,
                                  const LogitSums<A>& teacher, A divergence, A x_target) {
  RowResult<A> r{};
  const bool no_student = student.sum1 == A(0);  // -inf everywhere; NaN is not equal
  const bool no_teacher = !has_teacher || teacher.sum1 == A(0);
  if (row.target >= 0)
    r.ce = no_student ? infinity<A>() : hd_log(student.sum1) - (x_target - student.max);
  if (!no_teacher)
    r.kd = no_student ? infinity<A>() : tau_of_divergence(row, tau_power) * divergence;
  // A factor of 0 skips its term, even an infinite one.
  const A ce_weight = row.ce_weight * inv_z, kd_weight = row.kd_weight * inv_z;
  if (ce_weight != A(0)) r.loss += ce_weight * r.ce;
  if (kd_weight != A(0) && !no_teacher) r.loss += kd_weight * r.kd;
  if (no_student) return r;
  r.ce_weight = ce_weight;
  r.ce_scale = ce_weight != A(0) ? ce_weight / student.sum1 : A(0);
  if (no_teacher || kd_weight == A(0)) return r;
  r.kd_weight = kd_weight * tau_of_gradient(row, tau_power);
  r.kd_q = r.kd_weight / student.sum;
  r.kd_p = r.kd_weight / teacher.sum;
  return r;
}

/// Stores the statistics of row i. t_target: the teacher's logit at the target.
template <class A>
RETORT_HD void store_statistics(const DistillLossArgs& a, std::int64_t i, const Row<A>& row,
                                const RowResult<A>& r, const LogitSums<A>& s, bool has_teacher,
                                const LogitSums<A>& t, A t_target) {
  const std::int64_t n = a.rows;
  float* const f = a.statistics + i;
  for (int k = 0; k < kRowStatistics; ++k) f[k * n] = 0.0f;
  f[kStatCe * n] = static_cast<float>(r.ce);
  f[kStatKd * n] = static_cast<float>(r.kd);
  f[kStatStudentConfidence * n] = s.sum1 == A(0) ? 0.0f : static_cast<float>(A(1) / s.sum1);
  a.argmax[i] = s.argmax;
  a.correct[i] = row.target >= 0 && s.argmax == row.target;
  a.argmax[n + i] = -1;
  a.correct[n + i] = 0;
  if (!has_teacher || t.sum1 == A(0)) return;
  const A log_sum = hd_log(t.sum1);
  f[kStatTeacherConfidence * n] = static_cast<float>(A(1) / t.sum1);
  f[kStatTeacherLogConfidence * n] = static_cast<float>(-log_sum);
  f[kStatTeacherMaxLogit * n] = static_cast<float>(t.max);
  f[kStatTeacherMargin * n] = static_cast<float>((A(1) - hd_exp(t.next - t.max)) / t.sum1);
  f[kStatTeacherEntropy * n] = static_cast<float>(log_sum - t.dot1 / t.sum1);
  a.argmax[n + i] = t.argmax;
  if (row.target < 0) return;
  a.correct[n + i] = t.argmax == row.target;
  const A log_p = t_target - t.max - log_sum;
  f[kStatTeacherPTrue * n] = static_cast<float>(hd_exp(log_p));
  f[kStatTeacherLogPTrue * n] = static_cast<float>(log_p);
}

/// Zeros for an ignored row, NaN for an invalid one.
RETORT_HD void store_empty_statistics(const DistillLossArgs& a, std::int64_t i, float value) {
  for (int k = 0; k < kRowStatistics; ++k) a.statistics[k * a.rows + i] = value;
  a.argmax[i] = a.argmax[a.rows + i] = -1;
  a.correct[i] = a.correct[a.rows + i] = 0;
}

}  // namespace retort::kernels::distill
