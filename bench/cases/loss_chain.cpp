#include "bench/cases/loss_chain.h"

#include <cmath>
#include <vector>

#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "engine/ops/softmax.h"

namespace retort::bench {
namespace {

using kernels::Divergence;

// share x + (1 - share) y
Tensor mixture(const Tensor& x, double share, const Tensor& y) {
  return add(scale(x, share), scale(y, 1 - share));
}

// sum x (log x - log y) over all rows
Tensor kl(const Tensor& x, const Tensor& log_x, const Tensor& log_y) {
  return sum(multiply(x, subtract(log_x, log_y)));
}

// D summed over the rows, by the formulas of kernels::Divergence. Each computes the probabilities
// it needs and no others: the chain should not lose by waste.
Tensor divergence_sum(Divergence kind, const Tensor& log_p, const Tensor& log_q) {
  const double k = kernels::default_parameter(kind);
  if (kind == Divergence::kForwardKl) return kl(exp(log_p), log_p, log_q);
  if (kind == Divergence::kReverseKl) return kl(exp(log_q), log_q, log_p);
  const Tensor p = exp(log_p), q = exp(log_q);
  if (kind == Divergence::kTotalVariation) return scale(sum(abs(subtract(p, q))), 0.5);
  if (kind == Divergence::kSkewKl) return kl(p, log_p, log(mixture(p, k, q)));
  if (kind == Divergence::kSkewReverseKl) return kl(q, log_q, log(mixture(q, k, p)));
  const Tensor log_m = log(mixture(p, k, q));
  return add(scale(kl(p, log_p, log_m), k), scale(kl(q, log_q, log_m), 1 - k));
}

template <class T>
void set_ones(const Tensor& rows, const std::vector<std::int32_t>& at) {
  for (std::size_t i = 0; i < at.size(); ++i)
    rows.data<T>()[static_cast<std::int64_t>(i) * rows.dim(1) + at[i]] = T(1.0f);
}

}  // namespace

Tensor one_hot_rows(const Tensor& targets, const Tensor& like) {
  const Tensor host = Tensor::zeros(like.shape(), like.dtype());
  const std::vector<std::int32_t> at = targets.to_vector<std::int32_t>();
  switch (like.dtype()) {
    case DType::kF32: set_ones<float>(host, at); break;
    case DType::kBF16: set_ones<bf16>(host, at); break;
    default: set_ones<double>(host, at); break;
  }
  return host.to(like.device());
}

Tensor loss_chain(const LossChain& c) {
  const double n = static_cast<double>(c.student.dim(0));
  const Tensor ce = negate(sum(multiply(log_softmax(c.student), c.one_hot)));
  if (!c.teacher.defined()) return scale(ce, 1 / n);
  const Tensor log_p = log_softmax(scale(c.teacher, 1 / c.tau));
  const Tensor log_q = log_softmax(scale(c.student, 1 / c.tau));
  return add(scale(ce, (1 - c.lambda) / n),
             scale(divergence_sum(c.divergence, log_p, log_q),
                   c.lambda * std::pow(c.tau, kernels::facts_of(c.divergence).tau_power) / n));
}

}  // namespace retort::bench
