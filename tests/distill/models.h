// Small models for the tests of this room.
#pragma once
#include <memory>
#include <vector>

#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "nn/module.h"

namespace retort::test {

/// logits = W x + b, (N, in) -> (N, V).
class LinearModel : public nn::Model {
 public:
  LinearModel(std::int64_t in, std::int64_t classes)
      : weight_(add_parameter("weight", {classes, in}, nn::Init::linear_default(in))),
        bias_(add_parameter("bias", {classes}, nn::Init::linear_default(in))) {}
  nn::Outputs forward(const nn::Inputs& x, const nn::Want& want) override {
    check_want("linear", want);
    ++forwards;
    nn::Outputs out;
    out.logits = linear(x.values, weight_, bias_), out.features = x.values;
    return out;
  }
  nn::ModelFacts facts() const override { return {.classes = weight_.dim(0)}; }
  void set(const std::vector<float>& weight, const std::vector<float>& bias) {
    weight_.detach().copy_from(Tensor::from(weight, weight_.shape()));
    bias_.detach().copy_from(Tensor::from(bias, bias_.shape()));
  }
  int forwards = 0;

 private:
  Tensor &weight_, &bias_;
};

/// in -> widths ... -> V with ReLU between.
class TinyMlp : public nn::Model {
 public:
  TinyMlp(std::int64_t in, const std::vector<std::int64_t>& widths, std::int64_t classes,
          std::uint64_t seed)
      : classes_(classes) {
    std::int64_t from = in;
    for (std::size_t i = 0; i <= widths.size(); ++i) {
      const std::int64_t to = i < widths.size() ? widths[i] : classes;
      weight_.push_back(
          &add_parameter(join("w", i + 1), {to, from}, nn::Init::linear_default(from)));
      bias_.push_back(&add_parameter(join("b", i + 1), {to}, nn::Init::linear_default(from)));
      from = to;
    }
    initialize(seed);
  }
  nn::Outputs forward(const nn::Inputs& x, const nn::Want& want) override {
    check_want("tiny", want);
    nn::Outputs out;
    Tensor h = x.values;
    const std::size_t hidden = weight_.size() - 1,
                      layers = want.layers > 0 ? static_cast<std::size_t>(want.layers) : hidden;
    for (std::size_t i = 0; i < layers; ++i) {
      h = linear(h, *weight_[i], *bias_[i]);
      if (want.hidden) out.pre.push_back(h);
      h = relu(h);
      if (want.hidden) out.post.push_back(h);
    }
    if (want.layers > 0) return out;
    out.features = h;
    out.logits = linear(h, *weight_[hidden], *bias_[hidden]);
    return out;
  }
  nn::ModelFacts facts() const override {
    return {.classes = classes_, .hidden_layers = static_cast<std::int64_t>(weight_.size()) - 1};
  }

 private:
  std::int64_t classes_;
  std::vector<Tensor*> weight_, bias_;
};

}  // namespace retort::test
