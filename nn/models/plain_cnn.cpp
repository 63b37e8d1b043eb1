#include "nn/models/plain_cnn.h"

#include <charconv>

#include "engine/ops/elementwise.h"
#include "engine/ops/pool.h"
#include "engine/ops/view.h"

namespace retort::nn {
namespace {

std::int64_t width_of(std::string_view digits) {
  std::int64_t width = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), width);
  RETORT_CHECK(error == std::errc() && end == digits.data() + digits.size() && width >= 1,
               "[plain_cnn] expected a width in the layout, got '", digits, "'");
  return width;
}

struct Layout {
  const char* name;
  int convolutions;
  const char* ten;      // of CIFAR-10: up to ten classes
  const char* hundred;  // of CIFAR-100
};
// The last layer, FC and the classes, is left out.
constexpr Layout kLayouts[] = {
    {"plain2", 2, "C16,M,C16,M", "C32,M,C32,M"},
    {"plain4", 4, "C16,C16,M,C32,C32,M", "C32,C32,M,C64,C64,M"},
    {"plain6", 6, "C16,C16,M,C32,C32,M,C64,C64", "C32,C32,M,C64,C64,M,C128,C128"},
    {"plain8", 8, "C16,C16,M,C32,C32,M,C64,C64,M,C128,C128,M,FC64",
     "C32,C32,M,C64,C64,M,C128,C128,M,C256,C256,M,FC64"},
    {"plain10", 10, "C32,C32,M,C64,C64,M,C128,C128,M,C256,C256,C256,C256,M,FC128",
     "C32,C32,M,C64,C64,M,C128,C128,M,C256,C256,C256,C256,M,FC512"},
};

const Layout& layout_of(const std::string& name) {
  for (const Layout& layout : kLayouts)
    if (name == layout.name) return layout;
  fail(ErrorCode::kUsage, "[plain_cnn] no net is called ", name);
}

}  // namespace

PlainCnn::PlainCnn(const std::string& layout, const Shape& input) : input_(input) {
  RETORT_CHECK(input.rank() == 3, "[plain_cnn] expected images (H, W, C), got ", input);
  std::int64_t height = input[0], width = input[1], channels = input[2], features = 0;
  for (const std::string& part : split(layout, ',')) {
    if (part == "M") {
      RETORT_CHECK(!pool_behind_.empty() && height >= 2 && width >= 2,
                   "[plain_cnn] the images are too small for the pools of ", layout);
      pool_behind_.back() = true;
      height /= 2, width /= 2;
    } else if (part.starts_with("FC")) {
      if (heads_.empty()) features = features_ = height * width * channels;
      classes_ = width_of(std::string_view(part).substr(2));
      heads_.push_back(&add_module("fc" + std::to_string(heads_.size() + 1),
                                   std::make_shared<Linear>(features, classes_)));
      features = classes_;
    } else {
      RETORT_CHECK(part.starts_with("C") && heads_.empty(), "[plain_cnn] expected C<width>, M or ",
                   "FC<width>, convolutions first, got '", part, "' in ", layout);
      const std::int64_t out = width_of(std::string_view(part).substr(1));
      const Conv2d& conv =
          add_module("conv" + std::to_string(pool_behind_.size() + 1),
                     std::make_shared<Conv2d>(Conv2d::Config{channels, out, 3, 1, 1, Fan::kIn},
                                              Init::linear_default(9 * channels)));
      BatchNorm& norm = add_module("bn" + std::to_string(pool_behind_.size() + 1),
                                   std::make_shared<BatchNorm>(out));
      steps_.emplace_back(conv, norm);
      pool_behind_.push_back(false);
      channels = out;
    }
  }
  RETORT_CHECK(!heads_.empty(), "[plain_cnn] expected a fully connected layer at the end of ",
               layout);
}

ModelFacts PlainCnn::facts() const {
  return {.reads = Reads::kImages,
          .classes = classes_,
          .hidden_layers = static_cast<std::int64_t>(steps_.size())};
}

void PlainCnn::freeze(Frozen how) {
  for (ConvNorm& step : steps_) {
    if (how == Frozen::kForGood)
      step.fold_for_good();
    else
      step.fold(how == Frozen::kBeside);
  }
}

Outputs PlainCnn::forward(const Inputs& inputs, const Want& want) {
  const Tensor& x = inputs.values;
  RETORT_CHECK(
      x.rank() == 4 && x.dim(1) == input_[0] && x.dim(2) == input_[1] && x.dim(3) == input_[2],
      "[plain_cnn] expected images (B, ", input_[0], ", ", input_[1], ", ", input_[2], "), got ",
      x.shape());
  check_want("plain_cnn", want);
  Outputs out;
  Tensor h = x;
  const std::size_t layers =
      want.layers > 0 ? static_cast<std::size_t>(want.layers) : steps_.size();
  for (std::size_t i = 0; i < layers; ++i) {
    if (want.hidden) {
      out.pre.push_back(steps_[i].forward(h, /*relu=*/false));  // (B, H', W', C)
      h = relu(out.pre.back());
      out.post.push_back(h);
    } else {
      h = steps_[i].forward(h, /*relu=*/true);  // (B, H', W', C)
    }
    if (pool_behind_[i]) h = max_pool2d(h, 2, 2, 0);
  }
  if (want.layers > 0) return out;
  h = reshape(h, {h.dim(0), features_});  // (B, H' W' C)
  for (std::size_t i = 0; i + 1 < heads_.size(); ++i) h = heads_[i]->forward_relu(h);
  out.features = h;
  out.logits = heads_.back()->forward(h);  // (B, classes)
  return out;
}

ModelKind plain_cnn_kind() {
  ModelKind kind;
  for (const Layout& layout : kLayouts) kind.names.emplace_back(layout.name);
  kind.reads = Reads::kImages;
  kind.options = {choice_option("layout", "auto", "auto|cifar10|cifar100",
                                "Widths of a plain CNN: the study's for CIFAR-10 or for CIFAR-100; "
                                "auto: the former up to ten classes.")
                      .with(kChangesCost)};
  kind.doc = "plain CNNs of Mirzadeh et al. (TAKD): 3x3 convolutions, batch norm, max pools";
  kind.hidden_layers = [](const ModelConfig& c) { return layout_of(c.arch).convolutions; };
  kind.make = [](const ModelConfig& c) -> std::shared_ptr<Model> {
    const Layout& layout = layout_of(c.arch);
    const std::string& wanted = c.options.text("layout");
    const bool ten = wanted == "auto" ? c.classes <= 10 : wanted == "cifar10";
    const Shape input = c.input.rank() == 0 ? Shape{32, 32, 3} : c.input;
    return std::make_shared<PlainCnn>(join(ten ? layout.ten : layout.hundred, ",FC", c.classes),
                                      input);
  };
  return kind;
}

}  // namespace retort::nn
