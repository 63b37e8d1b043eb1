// The arithmetic of one AdamW element, shared by CPU and CUDA.
#pragma once
#include <cmath>
#include <cstdint>

#include "kernels/common/hd.h"

namespace retort::kernels {

template <class A>
struct AdamWFactors {  // in the type of the parameters
  A clip, decay, beta1, one_minus_beta1, beta2, one_minus_beta2;
  A step_size;          // learning_rate / (1 - beta1^t)
  A rsqrt_correction2;  // 1 / sqrt(1 - beta2^t)
  A epsilon;
};

/// 1 - beta^t in double, without cancellation for small t.
RETORT_HD double adamw_correction(double beta, std::int64_t t) {
  return beta == 0 ? 1.0 : -std::expm1(static_cast<double>(t) * std::log(beta));
}

template <class A>
RETORT_HD AdamWFactors<A> adamw_factors(float learning_rate, std::int64_t t, float clip,
                                        double beta1, double beta2, double epsilon,
                                        double weight_decay) {
  const double rate = static_cast<double>(learning_rate);
  return {static_cast<A>(clip),
          static_cast<A>(1 - rate * weight_decay),
          static_cast<A>(beta1),
          static_cast<A>(1 - beta1),
          static_cast<A>(beta2),
          static_cast<A>(1 - beta2),
          static_cast<A>(rate / adamw_correction(beta1, t)),
          static_cast<A>(1 / std::sqrt(adamw_correction(beta2, t))),
          static_cast<A>(epsilon)};
}

/// Which operations are fused is said here, as the CPU's vectors say it: a compiler that may choose
/// chooses differently in different loops.
template <class A>
RETORT_HD A adamw_element(A p, A gradient, A& m, A& v, const AdamWFactors<A>& f) {
  const A g = f.clip * gradient;
  m = std::fma(f.beta1, m, f.one_minus_beta1 * g);
  v = std::fma(f.beta2, v, f.one_minus_beta2 * (g * g));
  const A below = std::fma(std::sqrt(v), f.rsqrt_correction2, f.epsilon);
  return std::fma(f.decay, p, -(f.step_size * m / below));
}

}  // namespace retort::kernels
