// The gradient norm as its contract says it, in double.
#pragma once
#include <algorithm>
#include <cmath>

#include "kernels/grad_norm/grad_norm.h"

namespace retort::kernels {

struct GradNorm {
  double norm = 0, clip = 1;
};

/// Of all gradients, one after the other: anything with size() and operator[].
template <class Values>
GradNorm grad_norm_composed(const Values& gradients, double max_norm) {
  double squares = 0;
  for (std::size_t i = 0; i < gradients.size(); ++i) squares += gradients[i] * gradients[i];
  const double norm = std::sqrt(squares);
  return {norm, max_norm == 0 ? 1 : std::min(1.0, max_norm / (norm + 1e-6))};
}

}  // namespace retort::kernels
