// Models by the names that recipes and the command line use.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nn/data/dataset.h"
#include "nn/module.h"
#include "nn/registry.h"

namespace retort::nn {

/// What to build: a name, what is known of the data, and options of the name's row.
///
///   mlp                          fully connected, ReLU: inputs -> hidden widths -> classes
///   resnet{8,14,20,32,44,56,110} CIFAR nets of He et al. 2016 section 4.2, 32 x 32 input
///   resnet8x4, resnet32x4        the same, wider: the layout of Tian et al. (RepDistiller)
///   resnet{18,34,50,101,152}     torchvision's, 7x7 stem and max pool
///   the same with _cifar         3x3 stem, no pool, for 32 x 32 input
///   plain{2,4,6,8,10}            plain CNNs of Mirzadeh et al. (TAKD), 32 x 32 input
///   bert, distilbert, gpt2       transformers, of any size; Hugging Face's names and folders
struct ModelConfig {
  std::string arch;
  std::int64_t classes = 10;
  std::uint64_t seed = 0;
  Options options = {};        // {{"hidden", Ints{64, 64}}}; what is missing has its fallback
  Shape input = {};            // of one sample: (n), (H, W, C); images have 3 channels without it
  bool scalar_target = false;  // two classes that are the sign of one number (parity)
  bool initialize = true;      // false: parameters stay 0, for weights that will come from a file
  // Of text: what the data asks for, how many ids it has, and sequences of one sample.
  TextTask task = TextTask::kNone;
  std::int64_t ids = 0, choices = 1;
  /// A folder whose config.json says what the options leave open. "": none.
  std::string folder = {};

  std::int64_t input_channels() const { return input.rank() == 3 ? input[2] : 3; }
};

/// A family of models: one row of the registry. Functions get complete options.
struct ModelKind {
  std::vector<std::string> names;
  Reads reads = Reads::kFeatures;
  std::vector<OptionSpec> options = {};
  std::string doc = {};  // one sentence
  /// Of complete options; null: every value that fits its row is right.
  std::function<std::optional<OptionFault>(const Options&)> check = {};
  /// What facts().hidden_layers of the model will be.
  std::function<std::int64_t(const ModelConfig&)> hidden_layers = {};
  std::function<std::shared_ptr<Model>(const ModelConfig&)> make = {};
};

/// The rows; registry().add(kind) from outside. See nn/registry.h.
Registry<ModelKind>& model_kinds();

/// Builds the model on the CPU, in training mode, its parameters drawn from (seed, path).
/// Errors    kUsage for an unknown name (with a list) or an option that its row does not read.
std::shared_ptr<Model> make_model(const ModelConfig& config);

/// The config with the options of its row completed. Errors    those of make_model.
ModelConfig complete(const ModelConfig& config);

}  // namespace retort::nn
