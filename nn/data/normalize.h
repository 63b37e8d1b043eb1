// How pixel values become network inputs. It belongs to a model, not to the data: a teacher and a
// student that share a batch may want different ones.
#pragma once
#include <string>
#include <vector>

#include "engine/tensor/tensor.h"
#include "nn/options.h"

namespace retort::nn {

/// input = (pixel / 255 - mean) / std, per channel.
struct Normalize {
  std::vector<double> mean, std;

  /// "cifar", "imagenet" (three channels), or "none" (mean 0, std 1, any channels).
  /// Throws Error(kUsage) listing them.
  static Normalize named(const std::string& name);
  /// From one mean and std per channel; std > 0, all finite.
  static Normalize custom(std::vector<double> mean, std::vector<double> std);
  /// From an option of type kNormalize: a word; [mean, std], the same for all channels; or means
  /// and then deviations.
  static Normalize of(const OptionValue& value, std::int64_t channels);
  /// From what str() wrote, such as a weights file's metadata: for of(). Errors    kBadInput.
  static OptionValue parse(const std::string& text);

  bool operator==(const Normalize&) const = default;
  /// "cifar", "imagenet", "none", or the numbers: "[[0.5], [0.25]]".
  std::string str() const;
  /// (channels, 256) f32: the input for every pixel value, rounded once.
  Tensor table(std::int64_t channels) const;
};

}  // namespace retort::nn
