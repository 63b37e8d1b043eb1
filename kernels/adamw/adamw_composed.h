// AdamW as its contract says it, in double.
#pragma once
#include <cmath>

#include "kernels/adamw/adamw.h"

namespace retort::kernels {

struct AdamWElement {
  double p = 0, m = 0, v = 0;  // parameter, moments
};

/// An element after update number `step` (from 1). Of `args` only beta1, beta2, epsilon and
/// weight_decay are read.
inline AdamWElement adamw_composed(AdamWElement x, double gradient, const AdamWArgs& args,
                                   double rate, std::int64_t step, double clip = 1) {
  const double g = clip * gradient, t = static_cast<double>(step);
  x.p *= 1 - rate * args.weight_decay;
  x.m = args.beta1 * x.m + (1 - args.beta1) * g;
  x.v = args.beta2 * x.v + (1 - args.beta2) * g * g;
  x.p -= rate * (x.m / (1 - std::pow(args.beta1, t))) /
         (std::sqrt(x.v / (1 - std::pow(args.beta2, t))) + args.epsilon);
  return x;
}

}  // namespace retort::kernels
