#include "nn/models/resnet.h"

#include <deque>

#include "engine/ops/elementwise.h"
#include "engine/ops/pool.h"
#include "engine/ops/shortcut.h"

namespace retort::nn {
namespace {

using Shortcut = ResNetConfig::Shortcut;
using Stem = ResNetConfig::Stem;

Conv2d::Config convolution(const ResNetConfig& c, std::int64_t in, std::int64_t out, int kernel,
                           int stride) {
  return {in, out, kernel, stride, kernel / 2, c.fan};
}

// Option B: a strided 1x1 convolution and its batch norm, named "0" and "1".
class Projection : public Module {
 public:
  Projection(const ResNetConfig& c, std::int64_t in, std::int64_t out, int stride)
      : conv_(add_module("0", std::make_shared<Conv2d>(convolution(c, in, out, 1, stride)))),
        bn_(add_module("1", std::make_shared<BatchNorm>(out))),
        step_(conv_, bn_) {}
  Tensor forward(const Tensor& x) const { return step_.forward(x, /*relu=*/false); }
  ConvNorm& step() { return step_; }

 private:
  Conv2d& conv_;
  BatchNorm& bn_;
  ConvNorm step_;
};

}  // namespace

// relu(bn(conv(... x)) + shortcut(x)): two 3x3 convolutions, or 1x1, 3x3, 1x1.
class ResNet::Block : public Module {
 public:
  Block(const ResNetConfig& c, std::int64_t in, std::int64_t width, int stride)
      : out_(c.bottleneck ? 4 * width : width),
        stride_(stride),
        reshapes_(stride != 1 || in != out_) {
    if (c.bottleneck) {
      add(c, in, width, 1, 1);
      add(c, width, width, 3, stride);
      add(c, width, out_, 1, 1);
    } else {
      add(c, in, width, 3, stride);
      add(c, width, out_, 3, 1);
    }
    if (reshapes_ && c.shortcut == Shortcut::kB)
      projection_ = &add_module(c.shortcut_name, std::make_shared<Projection>(c, in, out_, stride));
  }

  // pre: where to put the sum before the last ReLU, if it is wanted.
  Tensor forward(const Tensor& x, Tensor* pre) const {
    Tensor h = x;  // (B, H, W, in), then (B, H', W', width)
    for (std::size_t i = 0; i + 1 < steps_.size(); ++i) h = steps_[i].forward(h, /*relu=*/true);
    const Tensor shortcut = !reshapes_    ? x
                            : projection_ ? projection_->forward(x)
                                          : shortcut_a(x, stride_, out_);  // (B, H', W', out)
    if (pre == nullptr) return steps_.back().forward(h, /*relu=*/true, shortcut);
    *pre = steps_.back().forward(h, /*relu=*/false, shortcut);
    return relu(*pre);
  }
  template <class F>
  void for_each_step(const F& f) {
    for (ConvNorm& step : steps_) f(step);
    if (projection_) f(projection_->step());
  }
  std::int64_t out() const { return out_; }

 private:
  void add(const ResNetConfig& c, std::int64_t in, std::int64_t out, int kernel, int stride) {
    const std::string number = std::to_string(steps_.size() + 1);
    const Conv2d& conv = add_module(
        "conv" + number, std::make_shared<Conv2d>(convolution(c, in, out, kernel, stride)));
    BatchNorm& norm = add_module("bn" + number, std::make_shared<BatchNorm>(out));
    steps_.emplace_back(conv, norm);
  }

  std::int64_t out_;
  int stride_;
  bool reshapes_;
  std::deque<ConvNorm> steps_;
  Projection* projection_ = nullptr;
};

class ResNet::Stage : public Module {
 public:
  Stage(const ResNetConfig& c, std::int64_t in, std::int64_t width, int blocks, int stride) {
    for (int i = 0; i < blocks; ++i) {
      blocks_.push_back(
          &add_module(std::to_string(i), std::make_shared<Block>(c, in, width, i ? 1 : stride)));
      in = blocks_.back()->out();
    }
  }
  Tensor forward(Tensor h, Tensor* pre) const {
    for (const Block* block : blocks_)
      h = block->forward(h, block == blocks_.back() ? pre : nullptr);
    return h;
  }
  template <class F>
  void for_each_step(const F& f) {
    for (Block* block : blocks_) block->for_each_step(f);
  }
  std::int64_t out() const { return blocks_.back()->out(); }

 private:
  std::vector<Block*> blocks_;
};

ResNet::ResNet(const ResNetConfig& c) : config_(c) {
  RETORT_CHECK(!c.blocks.empty() && c.blocks.size() == c.widths.size(), "[resnet] expected ",
               c.blocks.size(), " widths, got ", c.widths.size());
  const bool large = c.stem == Stem::k7x7MaxPool;
  const Conv2d& conv1 =
      add_module("conv1", std::make_shared<Conv2d>(convolution(c, c.input_channels, c.stem_width,
                                                               large ? 7 : 3, large ? 2 : 1)));
  BatchNorm& bn1 = add_module("bn1", std::make_shared<BatchNorm>(c.stem_width));
  stem_ = std::make_unique<ConvNorm>(conv1, bn1);
  std::int64_t in = c.stem_width;
  for (std::size_t i = 0; i < c.blocks.size(); ++i) {
    RETORT_CHECK(c.blocks[i] >= 1, "[resnet] expected at least one block per stage, got ",
                 c.blocks[i]);
    stages_.push_back(
        &add_module("layer" + std::to_string(i + 1),
                    std::make_shared<Stage>(c, in, c.widths[i], c.blocks[i], i == 0 ? 1 : 2)));
    in = stages_.back()->out();
  }
  head_ = &add_module(c.head_name,
                      c.he_head ? std::make_shared<Linear>(in, c.classes, Init::he_normal(in))
                                : std::make_shared<Linear>(in, c.classes));
}

void ResNet::freeze(Frozen how) {
  const auto fold = [how](ConvNorm& step) {
    if (how == Frozen::kForGood)
      step.fold_for_good();
    else
      step.fold(how == Frozen::kBeside);
  };
  fold(*stem_);
  for (Stage* stage : stages_) stage->for_each_step(fold);
}

ModelFacts ResNet::facts() const {
  return {.reads = Reads::kImages,
          .classes = config_.classes,
          .hidden_layers = static_cast<std::int64_t>(stages_.size())};
}

// Public code bases differ in these two names alone.
Module::NamePairs ResNet::file_names() const {
  return {{"linear.", "fc."}, {".shortcut.", ".downsample."}};
}

Outputs ResNet::forward(const Inputs& inputs, const Want& want) {
  const Tensor& x = inputs.values;
  RETORT_CHECK(x.rank() == 4 && x.dim(3) == config_.input_channels,
               "[resnet] expected images (B, H, W, ", config_.input_channels, "), got ", x.shape());
  check_want("resnet", want);
  Outputs out;
  Tensor h = stem_->forward(x, /*relu=*/true);  // (B, H, W, stem)
  if (config_.stem == Stem::k7x7MaxPool) h = max_pool2d(h, 3, 2, 1);
  const std::size_t layers =
      want.layers > 0 ? static_cast<std::size_t>(want.layers) : stages_.size();
  for (std::size_t i = 0; i < layers; ++i) {
    Tensor pre;
    h = stages_[i]->forward(h, want.hidden ? &pre : nullptr);  // (B, H', W', C)
    if (!want.hidden) continue;
    out.pre.push_back(pre);
    out.post.push_back(h);
  }
  if (want.layers > 0) return out;
  out.features = global_average_pool(h);      // (B, C)
  out.logits = head_->forward(out.features);  // (B, classes)
  return out;
}

}  // namespace retort::nn
