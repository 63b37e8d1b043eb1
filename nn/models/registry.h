// Models by the names that recipes and the command line use.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nn/module.h"

namespace retort::nn {

/// What to build.
///
///   mlp                          fully connected, ReLU: inputs -> widths... -> classes
///   resnet{8,14,20,32,44,56,110} CIFAR nets of He et al. 2016 section 4.2, 32 x 32 input
///   resnet8x4, resnet32x4        the same, wider: the layout of Tian et al. (RepDistiller)
///   resnet{18,34,50,101,152}     torchvision's, 7x7 stem and max pool
///   the same with _cifar         3x3 stem, no pool, for 32 x 32 input
struct ModelConfig {
  std::string arch;
  std::int64_t classes = 10;
  std::uint64_t seed = 0;
  /// Shortcut where shapes change: "A" (no parameters), "B" (1x1 convolution), "" (as published: A
  /// for resnet{8..110}, B for all others).
  std::string shortcut = {};
  /// mlp: hidden widths, default {256}. CIFAR nets: {stem, stage 1, 2, 3}, default as published.
  std::vector<std::int64_t> widths = {};
  std::int64_t inputs = 0;     // mlp: features per sample
  bool scalar_output = false;  // mlp with 2 classes: one output f, logits (f, -f)
  std::int64_t input_channels = 3;
  bool initialize = true;  // false: parameters stay 0, for weights that will come from a file
};

/// Builds the model on the CPU, in training mode, its parameters drawn from (seed, path).
/// Throws Error(kUsage) for an unknown name (with a list) or a setting the model does not have.
std::shared_ptr<Model> make_model(const ModelConfig& config);

/// All names that make_model knows.
std::vector<std::string> model_names();

}  // namespace retort::nn
