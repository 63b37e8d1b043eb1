// The arithmetic of one SGD element, shared by CPU and CUDA.
#pragma once
#include "kernels/common/hd.h"

namespace retort::kernels {

template <class A>
struct SgdFactors {  // in the type of the parameters
  A learning_rate, clip, momentum, one_minus_dampening, weight_decay;
  bool first;  // the momentum buffer starts as the gradient
};

template <class A, bool kMomentum, bool kNesterov>
RETORT_HD A sgd_element(A p, A gradient, A& buffer, const SgdFactors<A>& f) {
  A g = f.clip * gradient + f.weight_decay * p;
  if constexpr (kMomentum) {
    buffer = f.first ? g : f.momentum * buffer + f.one_minus_dampening * g;
    g = kNesterov ? g + f.momentum * buffer : buffer;
  }
  return p - f.learning_rate * g;
}

}  // namespace retort::kernels
