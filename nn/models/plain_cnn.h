// Plain CNNs of the teacher-assistant study.
#pragma once
#include <deque>
#include <string>

#include "nn/layers/conv_norm.h"
#include "nn/layers/linear.h"
#include "nn/models/registry.h"

namespace retort::nn {

/// 3x3 convolutions with batch norm and ReLU, 2x2 max pools, then fully connected layers with ReLU
/// between them, after a layout such as "C16,C16,M,C32,C32,M,FC10".
///
/// A convolution's own bias is left out: the batch norm behind it takes it away.
///
/// Shapes    x (B, H, W, channels); logits (B, classes); pre and post (B, H', W', C) per
///           convolution.
/// Source    Mirzadeh et al. 2020 (TAKD), arXiv:1902.03393, and its public code.
class PlainCnn : public Model {
 public:
  /// `input` (H, W, C). The last part of the layout must be a fully connected layer.
  PlainCnn(const std::string& layout, const Shape& input);
  Outputs forward(const Inputs& inputs, const Want& want = {}) override;
  ModelFacts facts() const override;
  void freeze(Frozen how) override;

 private:
  Shape input_;
  std::int64_t features_ = 0, classes_ = 0;
  std::deque<ConvNorm> steps_;
  std::vector<bool> pool_behind_;  // by convolution
  std::vector<Linear*> heads_;     // owned by the module tree
};

/// "plain2", ... "plain10", for the registry.
ModelKind plain_cnn_kind();

}  // namespace retort::nn
