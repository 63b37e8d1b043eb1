#include "mine/skip_net.h"

#include "engine/ops/elementwise.h"

namespace mine {

using namespace retort::nn;
using retort::Tensor;

SkipNet::SkipNet(std::int64_t inputs, std::int64_t width, std::int64_t classes)
    : inputs_(inputs),
      classes_(classes),
      fc1_(add_module("fc1", std::make_shared<Linear>(inputs, width))),
      fc2_(add_module("fc2", std::make_shared<Linear>(width, width))),
      fc3_(add_module("fc3", std::make_shared<Linear>(width, classes))) {}

ModelFacts SkipNet::facts() const { return {.reads = Reads::kFeatures, .classes = classes_}; }

Outputs SkipNet::forward(const Inputs& inputs, const Want& want) {
  const Tensor& x = inputs.values;
  RETORT_CHECK(x.rank() == 2 && x.dim(1) == inputs_, "[skip_net] expected features (B, ", inputs_,
               "), got ", x.shape());
  check_want("skip_net", want);
  const Tensor h = fc1_.forward_relu(x);
  Outputs out;
  out.features = relu(add(fc2_.forward(h), h));
  out.logits = fc3_.forward(out.features);
  return out;
}

ModelKind skip_net_kind() {
  ModelKind kind;
  kind.names = {"skip_net"};
  kind.options = {count_option("skip_width", 16, 1, 4096, "", "Width of a skip_net's layers.")
                      .with(kChangesCost)};
  kind.doc = "two layers of one width, the second beside a shortcut";
  kind.hidden_layers = [](const ModelConfig&) { return std::int64_t{0}; };
  kind.make = [](const ModelConfig& c) -> std::shared_ptr<Model> {
    RETORT_CHECK(c.input.rank() == 1, "[skip_net] expected features (n), got ", c.input);
    return std::make_shared<SkipNet>(c.input[0], c.options.integer("skip_width"), c.classes);
  };
  return kind;
}

}  // namespace mine
