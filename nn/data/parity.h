// Sparse parity: the task on which curriculum extraction is studied.
#pragma once
#include <optional>

#include "nn/data/registry.h"

namespace retort::nn {

/// x uniform in {-1, +1}^n; y = product of x over the support, k of the n coordinates; the target
/// is class 0 for y = +1 and class 1 for y = -1 (logits (f, -f) favour class 0 where f > 0).
struct ParityOptions {
  std::int64_t n = 40;
  std::int64_t k = 5;
  /// Samples are drawn on the fly: sample i is a function of (seed, i) alone, so as many as wanted
  /// cost no memory. 0: without end; the seed is then that of the source, and online training uses
  /// each index once.
  std::int64_t size = 0;
  std::int64_t epoch_size = 1;  // without end: samples that count as one epoch
  std::uint64_t seed = 0;
  /// Held-out samples come from another stream: no index of it equals one of the training stream.
  bool held_out = false;
  /// Unset: the support is coordinates 0 .. k - 1; else k coordinates drawn with this seed.
  std::optional<std::uint64_t> support_seed = {};
};

class ParityDataset : public Dataset {
 public:
  explicit ParityDataset(const ParityOptions& options);

  const DataFacts& facts() const override { return facts_; }
  std::uint64_t hash() const override { return hash_; }
  std::string describe() const override;
  std::vector<std::int32_t> labels() const override;
  std::shared_ptr<const Dataset> subset(std::span<const std::int64_t> samples) const override;
  /// Nothing is done to the samples, and models read them all alike, but for the dtype.
  std::shared_ptr<const Source> source(const SourceOptions& options) const override;

  const std::vector<std::int64_t>& support() const { return support_; }  // ascending
  const ParityOptions& options() const { return options_; }

 private:
  friend class ParitySource;
  /// Writes +-1 for sample i to x (n values); returns the target.
  std::int32_t draw(std::uint64_t seed, std::int64_t i, float* x) const;

  ParityOptions options_;
  std::vector<std::int64_t> support_;  // coordinates
  std::uint64_t hash_;
  DataFacts facts_;
  std::vector<std::int64_t> kept_;  // of a subset: its samples' own numbers; empty: all
};

/// "parity", for the registry.
DataKind parity_kind();

}  // namespace retort::nn
