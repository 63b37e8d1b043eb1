#include "nn/models/mlp.h"

#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/ops/view.h"

namespace retort::nn {

Mlp::Mlp(std::int64_t inputs, const std::vector<std::int64_t>& hidden, std::int64_t classes,
         bool scalar_output)
    : inputs_(inputs), classes_(classes), scalar_output_(scalar_output) {
  RETORT_CHECK(inputs >= 1, "[mlp] expected inputs >= 1, got ", inputs);
  RETORT_CHECK(classes >= 1, "[mlp] expected classes >= 1, got ", classes);
  RETORT_CHECK(!scalar_output || classes == 2, "[mlp] expected 2 classes with scalar_output, got ",
               classes);
  std::int64_t in = inputs;
  const auto add = [&](std::int64_t out) {
    RETORT_CHECK(out >= 1, "[mlp] expected widths >= 1, got ", out);
    layers_.push_back(
        &add_module("fc" + std::to_string(layers_.size() + 1), std::make_shared<Linear>(in, out)));
    in = out;
  };
  for (const std::int64_t width : hidden) add(width);
  add(scalar_output ? 1 : classes);
  signs_ = Tensor::from<float>({1, -1}, {2, 1});
}

Tensor Mlp::run(const Tensor& x, bool want_hidden, std::size_t layers, ForwardResult* result) {
  RETORT_CHECK(x.rank() >= 2 && x.numel() == x.dim(0) * inputs_, "[mlp] expected ", inputs_,
               " features per sample, got ", x.shape());
  Tensor h = x.rank() == 2 ? x : reshape(x, {x.dim(0), inputs_});  // (B, inputs)
  for (std::size_t i = 0; i < layers; ++i) {
    if (!want_hidden) {
      h = layers_[i]->forward_relu(h);  // (B, width)
      continue;
    }
    result->pre.push_back(layers_[i]->forward(h));  // (B, width)
    h = relu(result->pre.back());                   // (B, width)
    result->post.push_back(h);
  }
  return h;
}

ForwardResult Mlp::forward_hidden(const Tensor& x, std::int64_t layers) {
  const auto hidden = static_cast<std::int64_t>(layers_.size()) - 1;
  RETORT_CHECK(layers >= 1 && layers <= hidden, "[mlp] expected 1 to ", hidden,
               " hidden layers, got ", layers);
  ForwardResult result;
  run(x, true, static_cast<std::size_t>(layers), &result);
  return result;
}

ForwardResult Mlp::forward(const Tensor& x, bool want_hidden) {
  ForwardResult result;
  Tensor h = run(x, want_hidden, layers_.size() - 1, &result);  // (B, width)
  h = layers_.back()->forward(h);                               // (B, classes) or (B, 1)
  if (scalar_output_) {
    if (signs_.device() != h.device() || signs_.dtype() != h.dtype())
      signs_ = signs_.to(h.device()).to(h.dtype());
    h = linear(h, signs_, {});  // (B, 2): (f, -f)
  }
  result.logits = h;
  return result;
}

}  // namespace retort::nn
