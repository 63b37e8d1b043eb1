// Residual networks: the CIFAR family (three stages) and the ImageNet family (four stages).
#pragma once
#include "nn/layers/conv_norm.h"
#include "nn/layers/linear.h"
#include "nn/models/registry.h"

namespace retort::nn {

/// Source: He et al. 2016, arXiv:1512.03385. Parameter names and initialisation follow the public
/// code that each variant's weights come from: torchvision (conv1, bn1, layer1.0.conv1,
/// downsample.0, fc) or akamaster/pytorch_resnet_cifar10 (shortcut.0, linear).
struct ResNetConfig {
  enum class Stem : std::uint8_t { k3x3, k7x7MaxPool };
  enum class Shortcut : std::uint8_t { kA, kB };  // zero-padded channels; 1x1 convolution
  Stem stem = Stem::k3x3;
  Shortcut shortcut = Shortcut::kB;
  bool bottleneck = false;           // 1x1, 3x3 (the stride is here), 1x1 to 4 times the width
  std::vector<int> blocks;           // per stage
  std::vector<std::int64_t> widths;  // per stage, before the bottleneck's factor
  std::int64_t stem_width = 16;
  std::int64_t input_channels = 3;
  std::int64_t classes = 10;
  Fan fan = Fan::kOut;
  bool he_head = false;  // the last layer's weight by He initialisation too (akamaster)
  std::string head_name = "fc";
  std::string shortcut_name = "downsample";
};

/// Shapes    x (B, H, W, input_channels); logits (B, classes); pre and post (B, H', W', C) per
/// stage.
class ResNet : public Model {
 public:
  explicit ResNet(const ResNetConfig& config);
  Outputs forward(const Inputs& inputs, const Want& want = {}) override;
  ModelFacts facts() const override;
  void freeze(Frozen how) override;
  NamePairs file_names() const override;
  const ResNetConfig& config() const { return config_; }

 private:
  class Block;
  class Stage;
  ResNetConfig config_;
  std::unique_ptr<ConvNorm> stem_;
  std::vector<Stage*> stages_;  // owned by the module tree
  Linear* head_;
};

/// For the registry: the CIFAR nets, the same with RepDistiller's widths, torchvision's nets.
ModelKind cifar_resnet_kind();
ModelKind wide_cifar_resnet_kind();
ModelKind imagenet_resnet_kind();

}  // namespace retort::nn
