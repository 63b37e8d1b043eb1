// One row of the distillation loss as its contract says it, in double and from probabilities.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/distill_loss/distill_loss.h"

namespace retort::kernels {

/// A row that counts. c is its weight over Z.
struct DistillRowSettings {
  double lambda = 0, tau = 1, c = 1;
  AnyDivergence divergence = Divergence::kForwardKl;
  double parameter = 0;
  std::size_t target = 0;
  int tau_power = -1;  // -1: the divergence's
};
struct DistillRow {
  double loss = 0;               // its part of the total
  std::vector<double> gradient;  // (V)
  std::array<double, kRowStatistics> statistics{};
  int argmax_student = -1, argmax_teacher = -1;
};

/// log softmax(x / tau); of a row that is -inf everywhere NaN.
inline std::vector<double> log_softmax_composed(const std::vector<double>& x, double tau) {
  const double most = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const double v : x) sum += std::exp((v - most) / tau);
  std::vector<double> y;
  for (const double v : x) y.push_back((v - most) / tau - std::log(sum));
  return y;
}

/// D(p, q), and in h, up to a multiple of q, h_v = q_v dD/dq_v; of the logarithms of p and q. The
/// first six are written out once more, from their formulas; all others are their functor's in
/// double.
inline double divergence_composed(AnyDivergence any, double k, const std::vector<double>& log_p,
                                  const std::vector<double>& log_q, std::vector<double>* h) {
  const Divergence kind = any.built_in;
  const auto times_log = [](double x, double y) { return x > 0 ? x * y : 0; };  // 0 log 0 = 0
  double d = 0;
  h->clear();
  for (std::size_t v = 0; any.outside == nullptr && v < log_p.size(); ++v) {
    const double lp = log_p[v], lq = log_q[v], p = std::exp(lp), q = std::exp(lq);
    const double m = kind == Divergence::kSkewReverseKl ? k * q + (1 - k) * p : k * p + (1 - k) * q;
    const double p_over_m = times_log(p, std::log(p / m)), q_over_m = times_log(q, std::log(q / m));
    switch (kind) {
      case Divergence::kForwardKl:
        d += times_log(p, lp - lq);
        h->push_back(-p);
        break;
      case Divergence::kReverseKl:
        d += times_log(q, lq - lp);
        h->push_back(times_log(q, lq - lp));
        break;
      case Divergence::kJensenShannon:
        d += k * p_over_m + (1 - k) * q_over_m;
        h->push_back((1 - k) * q_over_m);
        break;
      case Divergence::kTotalVariation:
        d += std::abs(p - q) / 2;
        h->push_back(q > p ? q / 2 : q < p ? -q / 2 : 0);
        break;
      case Divergence::kSkewKl:
        d += p_over_m;
        h->push_back(p > 0 ? -(1 - k) * p * q / m : 0);
        break;
      case Divergence::kSkewReverseKl:
        d += q_over_m;
        h->push_back(q > 0 ? q_over_m - k * q * q / m : 0);
        break;
      default: {
        const auto e = divergence::element_of(kind, p, q, lp, lq, k);
        d += e.d;
        h->push_back(e.h);
      }
    }
  }
  for (std::size_t v = 0; any.outside != nullptr && v < log_p.size(); ++v) {
    const auto e =
        any.outside->element(std::exp(log_p[v]), std::exp(log_q[v]), log_p[v], log_q[v], k);
    d += e.d;
    h->push_back(e.h);
  }
  return d;
}

/// Logits may be -inf, but the student's largest one is finite. Empty: no teacher.
inline DistillRow distill_row_composed(const DistillRowSettings& s,
                                       const std::vector<double>& student,
                                       const std::vector<double>& teacher) {
  const auto largest = [](const std::vector<double>& x) {
    return static_cast<int>(std::max_element(x.begin(), x.end()) - x.begin());
  };
  DistillRow r;
  auto& stat = r.statistics;
  const int power = s.tau_power == -1 ? facts_of(s.divergence).tau_power : s.tau_power;
  const std::vector<double> student1 = log_softmax_composed(student, 1);
  r.argmax_student = largest(student);
  stat[kStatCe] = -student1[s.target];
  stat[kStatStudentConfidence] = std::exp(student1[static_cast<std::size_t>(r.argmax_student)]);
  std::vector<double> h(student.size()), log_q(student.size());
  double sum_h = 0;
  const int best = teacher.empty() ? 0 : largest(teacher);
  const bool has_teacher =  // one that is -inf everywhere is no distribution
      !teacher.empty() && std::isfinite(teacher[static_cast<std::size_t>(best)]);
  if (has_teacher) {
    log_q = log_softmax_composed(student, s.tau);
    stat[kStatKd] = std::pow(s.tau, power) *
                    divergence_composed(s.divergence, s.parameter,
                                        log_softmax_composed(teacher, s.tau), log_q, &h);
    for (const double v : h) sum_h += v;

    const std::vector<double> log_p = log_softmax_composed(teacher, 1);
    r.argmax_teacher = best;
    stat[kStatTeacherLogConfidence] = log_p[static_cast<std::size_t>(best)];
    stat[kStatTeacherConfidence] = std::exp(log_p[static_cast<std::size_t>(best)]);
    stat[kStatTeacherMaxLogit] = teacher[static_cast<std::size_t>(best)];
    stat[kStatTeacherLogPTrue] = log_p[s.target];
    stat[kStatTeacherPTrue] = std::exp(log_p[s.target]);
    double second = 0;
    for (std::size_t v = 0; v < log_p.size(); ++v) {
      const double p = std::exp(log_p[v]);
      if (p > 0) stat[kStatTeacherEntropy] -= p * log_p[v];
      if (static_cast<int>(v) != best) second = std::max(second, p);
    }
    stat[kStatTeacherMargin] = stat[kStatTeacherConfidence] - second;
  }
  // A term with the coefficient 0 is left out, even an infinite one.
  const double ce_weight = s.c * (1 - s.lambda), kd_weight = has_teacher ? s.c * s.lambda : 0;
  const auto term = [](double weight, double value) { return weight == 0 ? 0 : weight * value; };
  r.loss = term(ce_weight, stat[kStatCe]) + term(kd_weight, stat[kStatKd]);
  for (std::size_t v = 0; v < student.size(); ++v) {
    const double hard = std::exp(student1[v]) - (v == s.target ? 1 : 0);
    const double soft = std::pow(s.tau, power - 1) * (h[v] - std::exp(log_q[v]) * sum_h);
    r.gradient.push_back(term(ce_weight, hard) + term(kd_weight, soft));
  }
  return r;
}

}  // namespace retort::kernels
