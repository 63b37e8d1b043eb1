// From a recipe's [data] section to datasets.
#pragma once
#include "nn/data/dataset.h"

namespace retort::nn {

struct DataConfig {
  std::string format = "parity";                     // cifar10, cifar100, parity
  std::string root;                                  // folder of the files
  std::vector<std::string> train_files, test_files;  // empty: the standard names
  std::string train_range, test_range;               // index ranges: "0:5000,7000"; empty: all
  // parity
  std::int64_t n = 40, k = 5;
  std::int64_t train_size = 1 << 20, test_size = 4096;
  std::uint64_t seed = 0;
  std::optional<std::uint64_t> support_seed = {};
};

/// The training samples, or the held-out ones. Throws Error(kUsage) on an unknown format (listing
/// them), Error(kIo) or Error(kBadInput) on files.
std::shared_ptr<const Dataset> open_dataset(const DataConfig& config, bool train);

}  // namespace retort::nn
