// The files that one model's weights lie in.
#pragma once
#include <deque>
#include <string>

#include "engine/io/safetensors.h"

namespace retort::nn {

/// A safetensors file; or a folder as Hugging Face's libraries write it: model.safetensors, or
/// model.safetensors.index.json and the shards that it names.
///
/// Errors    Error(kBadInput) for a folder without either, an index that is no such thing, a tensor
///           that is not in the shard that the index gives it.
class WeightFiles {
 public:
  explicit WeightFiles(const std::string& path);

  /// What was asked for.
  const std::string& path() const { return path_; }
  /// The folder itself, or the one that the file is in.
  const std::string& folder() const { return folder_; }
  const std::deque<SafetensorsReader>& readers() const { return readers_; }

 private:
  void open_shards(const std::string& index);
  std::string path_, folder_;
  std::deque<SafetensorsReader> readers_;
};

/// Whether the path is a folder with something of a model in it: config.json, weights or their
/// index, in safetensors or in PyTorch's own format (which WeightFiles refuses).
bool is_weights_folder(const std::string& path);

}  // namespace retort::nn
