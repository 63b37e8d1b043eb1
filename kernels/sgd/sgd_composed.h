// SGD as its contract says it, in double.
#pragma once
#include "kernels/sgd/sgd.h"

namespace retort::kernels {

struct SgdElement {
  double p = 0, b = 0;  // parameter, momentum buffer
};

/// An element after update number `step` (from 1). Of `args` only momentum, dampening, weight_decay
/// and nesterov are read.
inline SgdElement sgd_composed(SgdElement x, double gradient, const SgdArgs& args, double rate,
                               std::int64_t step, double clip = 1) {
  double g = clip * gradient + args.weight_decay * x.p;
  if (args.momentum != 0) {
    x.b = step == 1 ? g : args.momentum * x.b + (1 - args.dampening) * g;
    g = args.nesterov ? g + args.momentum * x.b : x.b;
  }
  x.p -= rate * g;
  return x;
}

}  // namespace retort::kernels
