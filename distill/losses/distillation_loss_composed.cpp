// The distillation loss in plain ops. Read this to learn what the fused op computes.
#include <cmath>
#include <vector>

#include "distill/losses/distillation_loss.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "engine/ops/softmax.h"

namespace retort::distill {
namespace {

/// What each row is told, as numbers on the host.
struct Coefficients {
  std::vector<double> inverse_tau, tau_factor, ce_weight, kd_weight, counts;
  std::vector<std::int64_t> target;
};

Coefficients rows_of(const DistillationLossArgs& a) {
  const auto n = static_cast<std::size_t>(a.student_logits.dim(0));
  const auto values = [](const Tensor& t) {
    return t.defined() ? t.to_vector<double>() : std::vector<double>();
  };
  const auto at = [](const std::vector<double>& v, std::size_t i, double otherwise) {
    return v.empty() ? otherwise : v[v.size() == 1 ? 0 : i];
  };
  const std::vector<double> lambda = values(a.lambda), tau = values(a.temperature),
                            weights = values(a.weights), mask = values(a.mask),
                            samples = values(a.sample_of_row), targets = values(a.targets);
  const int power = a.tau_power == -1 ? kernels::facts_of(a.divergence).tau_power : a.tau_power;
  Coefficients rows;
  double kept = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const bool counts = at(mask, i, 1) != 0 && at(targets, i, 0) != a.ignore_index;
    const std::size_t sample = samples.empty() ? i : static_cast<std::size_t>(samples[i]);
    const double l = at(lambda, sample, a.teacher_logits.defined() ? 1 : 0);
    const double w = counts ? at(weights, sample, 1) : 0, t = counts ? at(tau, sample, 1) : 1;
    kept += counts;
    rows.counts.push_back(counts);
    rows.inverse_tau.push_back(1 / t);
    rows.tau_factor.push_back(std::pow(t, power));
    rows.ce_weight.push_back(w * (1 - l));
    rows.kd_weight.push_back(w * l);
    rows.target.push_back(counts ? static_cast<std::int64_t>(at(targets, i, 0)) : 0);
  }
  const double z = a.normalizer.defined() ? a.normalizer.item() : kept;
  for (std::size_t i = 0; i < n; ++i) {
    rows.ce_weight[i] = z > 0 ? rows.ce_weight[i] / z : 0;
    rows.kd_weight[i] = z > 0 ? rows.kd_weight[i] / z : 0;
  }
  return rows;
}

/// D of each row: (N).
Tensor divergence_of(AnyDivergence any, double k, const Tensor& log_p, const Tensor& log_q) {
  RETORT_CHECK(any.outside == nullptr, "[distillation_loss] no definition in tensor ops of ",
               name_of(any));
  const Tensor p = exp(log_p), q = exp(log_q);  // (N, V)
  const auto mixture = [](const Tensor& x, double share, const Tensor& y) {
    return add(scale(x, share), scale(y, 1 - share));  // share x + (1 - share) y
  };
  const auto kl = [](const Tensor& x, const Tensor& log_x, const Tensor& log_y) {
    return sum_rows(multiply(x, subtract(log_x, log_y)));
  };
  switch (any.built_in) {
    case Divergence::kForwardKl: return kl(p, log_p, log_q);
    case Divergence::kReverseKl: return kl(q, log_q, log_p);
    case Divergence::kJensenShannon: {
      const Tensor log_m = log(mixture(p, k, q));
      return add(scale(kl(p, log_p, log_m), k), scale(kl(q, log_q, log_m), 1 - k));
    }
    case Divergence::kTotalVariation: return scale(sum_rows(abs(subtract(p, q))), 0.5);
    case Divergence::kSkewKl: return kl(p, log_p, log(mixture(p, k, q)));
    case Divergence::kSkewReverseKl: return kl(q, log_q, log(mixture(q, k, p)));
    default: break;
  }
  fail(ErrorCode::kUsage, "[distillation_loss] no definition in tensor ops of ", name_of(any));
}

}  // namespace

DistillationLossResult distillation_loss_composed(const DistillationLossArgs& a) {
  const Tensor& s = a.student_logits;  // (N, V)
  const DType dtype = s.dtype();
  const Device device = s.device();
  const auto n = static_cast<std::size_t>(s.dim(0)), classes = static_cast<std::size_t>(s.dim(1));
  const Coefficients rows = rows_of(a);
  const auto per_row = [&](const std::vector<double>& values) {  // (N)
    return Tensor::from(values, {s.dim(0)}).to(dtype).to(device);
  };
  const auto per_logit = [&](auto value) {  // (N, V)
    std::vector<double> values(n * classes);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = value(i / classes, i % classes);
    return Tensor::from(values, s.shape()).to(dtype).to(device);
  };

  DistillationLossResult r;
  if (a.targets.defined()) {
    const Tensor one_hot = per_logit([&](std::size_t i, std::size_t v) {
      return static_cast<std::size_t>(rows.target[i]) == v ? 1.0 : 0.0;
    });
    const Tensor ce = negate(sum_rows(multiply(log_softmax(s), one_hot)));  // (N)
    r.ce = multiply(ce, per_row(rows.counts)).detach();
    r.total = sum(multiply(ce, per_row(rows.ce_weight)));
  }
  if (a.teacher_logits.defined()) {
    const Tensor inverse_tau =
        per_logit([&](std::size_t i, std::size_t) { return rows.inverse_tau[i]; });
    const Tensor log_p = log_softmax(multiply(a.teacher_logits.detach().to(dtype), inverse_tau));
    const Tensor log_q = log_softmax(multiply(s, inverse_tau));
    const double k = a.parameter == -1 ? kernels::default_parameter(a.divergence) : a.parameter;
    const Tensor kd = multiply(divergence_of(a.divergence, k, log_p, log_q),
                               per_row(rows.tau_factor));  // (N)
    r.kd = multiply(kd, per_row(rows.counts)).detach();
    const Tensor soft = sum(multiply(kd, per_row(rows.kd_weight)));
    r.total = r.total.defined() ? add(r.total, soft) : soft;
  }
  return r;
}

}  // namespace retort::distill
