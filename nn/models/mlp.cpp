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

ModelFacts Mlp::facts() const {
  return {.reads = Reads::kFeatures,
          .classes = classes_,
          .hidden_layers = static_cast<std::int64_t>(layers_.size()) - 1};
}

Outputs Mlp::forward(const Inputs& inputs, const Want& want) {
  const Tensor& x = inputs.values;
  RETORT_CHECK(x.rank() >= 2 && x.numel() == x.dim(0) * inputs_, "[mlp] expected ", inputs_,
               " features per sample, got ", x.shape());
  check_want("mlp", want);
  Outputs out;
  Tensor h = x.rank() == 2 ? x : reshape(x, {x.dim(0), inputs_});  // (B, inputs)
  const std::size_t layers =
      want.layers > 0 ? static_cast<std::size_t>(want.layers) : layers_.size() - 1;
  for (std::size_t i = 0; i < layers; ++i) {
    if (!want.hidden) {
      h = layers_[i]->forward_relu(h);  // (B, width)
      continue;
    }
    out.pre.push_back(layers_[i]->forward(h));  // (B, width)
    h = relu(out.pre.back());                   // (B, width)
    out.post.push_back(h);
  }
  if (want.layers > 0) return out;
  out.features = h;
  if (want.head && !scalar_output_) {
    out.head = layers_.back()->head();
    return out;
  }
  h = layers_.back()->forward(h);  // (B, classes) or (B, 1)
  if (scalar_output_) {
    if (signs_.device() != h.device() || signs_.dtype() != h.dtype())
      signs_ = signs_.to(h.device()).to(h.dtype());
    h = linear(h, signs_, {});  // (B, 2): (f, -f)
  }
  out.logits = h;
  return out;
}

ModelKind mlp_kind() {
  ModelKind kind;
  kind.names = {"mlp"};
  kind.reads = Reads::kFeatures;
  kind.doc = "fully connected, ReLU: inputs -> hidden widths -> classes";
  kind.options = {
      ints_option("hidden", {256}, 1, 65536, "units", "Hidden widths of an mlp.")
          .with(kChangesCost)
          .not_empty(),
      choice_option("output", "auto", "auto|scalar|classes",
                    "Last layer of an mlp on two classes: one output f with logits (f, -f), or one "
                    "for each class; auto: as the data asks (parity: scalar).")
          .with(kChangesCost)};
  kind.hidden_layers = [](const ModelConfig& c) {
    return static_cast<std::int64_t>(c.options.integers("hidden").size());
  };
  kind.make = [](const ModelConfig& c) -> std::shared_ptr<Model> {
    std::int64_t inputs = 1;
    for (int i = 0; i < c.input.rank(); ++i) inputs *= c.input[i];
    RETORT_CHECK(c.input.rank() >= 1, "[mlp] expected the shape of a sample in input");
    const std::string& output = c.options.text("output");
    const bool scalar = output == "scalar" || (output == "auto" && c.scalar_target);
    return std::make_shared<Mlp>(inputs, c.options.integers("hidden"), c.classes, scalar);
  };
  return kind;
}

}  // namespace retort::nn
