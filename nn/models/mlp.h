// Multi-layer perceptron.
#pragma once
#include "nn/layers/linear.h"
#include "nn/models/registry.h"

namespace retort::nn {

/// Fully connected layers fc1, fc2, ... with ReLU between them.
///
/// Shapes    x (B, ...) with `inputs` features per sample; logits (B, classes);
///           pre and post (B, width) per hidden layer.
class Mlp : public Model {
 public:
  /// scalar_output (2 classes only): the last layer has one output f and the logits are (f, -f).
  Mlp(std::int64_t inputs, const std::vector<std::int64_t>& hidden, std::int64_t classes,
      bool scalar_output = false);
  Outputs forward(const Inputs& inputs, const Want& want = {}) override;
  ModelFacts facts() const override;

 private:
  std::int64_t inputs_, classes_;
  bool scalar_output_;
  std::vector<Linear*> layers_;  // owned by the module tree
  Tensor signs_;                 // (2, 1): {1, -1}
};

/// "mlp", for the registry.
ModelKind mlp_kind();

}  // namespace retort::nn
