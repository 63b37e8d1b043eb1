// A module for tests of what packs and updates parameters.
#pragma once
#include "nn/module.h"
#include "tests/support/random.h"

namespace retort::nn {

/// One weight matrix and one bias.
class Small : public Module {
 public:
  explicit Small(DType dtype = DType::kF64)
      : weight(add_parameter("weight", test::randn({3, 5}, 1, dtype))),
        bias(add_parameter("bias", test::randn({7}, 2, dtype))) {}
  Tensor& weight;
  Tensor& bias;
};

}  // namespace retort::nn
