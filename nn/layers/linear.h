// Fully connected layer.
#pragma once
#include "nn/module.h"

namespace retort::nn {

/// y = x W^T + b.
///
/// Shapes    x (N, in), weight (out, in), bias (out), y (N, out).
/// Numerics  in the weight's dtype: bf16 activations are widened to f32 in front of an f32 layer,
/// so
///           that a model that runs in bf16 has f32 logits.
class Linear : public Module {
 public:
  /// Weight and bias from U(-1/sqrt(in), 1/sqrt(in)), as PyTorch, unless `weight_init` is given.
  Linear(std::int64_t in, std::int64_t out);
  Linear(std::int64_t in, std::int64_t out, const Init& weight_init);
  Tensor forward(const Tensor& x) const;
  Tensor forward_relu(const Tensor& x) const;  // max(y, 0), the same bytes as relu(forward(x))
  Head head() const { return {weight_, bias_}; }

 private:
  Tensor& weight_;
  Tensor& bias_;
};

}  // namespace retort::nn
