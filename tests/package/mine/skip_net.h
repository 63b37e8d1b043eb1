// A model of one's own.
#pragma once
#include "nn/layers/linear.h"
#include "nn/models/registry.h"

namespace mine {

/// Two layers of one width, the second beside a shortcut: h = relu(fc1 x), f = relu(fc2 h + h).
///
/// Shapes    x (B, n); logits (B, classes); features f (B, width).
class SkipNet : public retort::nn::Model {
 public:
  SkipNet(std::int64_t inputs, std::int64_t width, std::int64_t classes);
  retort::nn::Outputs forward(const retort::nn::Inputs& inputs,
                              const retort::nn::Want& want = {}) override;
  retort::nn::ModelFacts facts() const override;

 private:
  std::int64_t inputs_, classes_;
  retort::nn::Linear &fc1_, &fc2_, &fc3_;
};

/// "skip_net", for the registry.
retort::nn::ModelKind skip_net_kind();

}  // namespace mine
