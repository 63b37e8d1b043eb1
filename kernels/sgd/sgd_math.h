// The arithmetic of one SGD element, shared by CPU and CUDA.
#pragma once
#include <cmath>

#include "kernels/common/hd.h"

namespace retort::kernels {

template <class A>
struct SgdFactors {  // in the type of the parameters
  A learning_rate, clip, momentum, one_minus_dampening, weight_decay;
  bool first;  // the momentum buffer starts as the gradient
};

/// Which operations are fused is said here: a compiler that may choose chooses differently in
/// different loops, and an element's bits would depend on where it lies.
template <class A, bool kMomentum, bool kNesterov>
RETORT_HD A sgd_element(A p, A gradient, A& buffer, const SgdFactors<A>& f) {
  A g = std::fma(f.clip, gradient, f.weight_decay * p);
  if constexpr (kMomentum) {
    buffer = f.first ? g : std::fma(f.momentum, buffer, f.one_minus_dampening * g);
    g = kNesterov ? std::fma(f.momentum, buffer, g) : buffer;
  }
  return std::fma(-f.learning_rate, g, p);
}

}  // namespace retort::kernels
