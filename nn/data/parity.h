// Sparse parity: the task on which curriculum extraction is studied.
#pragma once
#include "nn/data/dataset.h"

namespace retort::nn {

/// x uniform in {-1, +1}^n; y = product of x over the support, k of the n coordinates; the target
/// is class 0 for y = +1 and class 1 for y = -1 (logits (f, -f) favour class 0 where f > 0).
struct ParityOptions {
  std::int64_t n = 40;
  std::int64_t k = 5;
  /// Samples are drawn on the fly: sample i is a function of (seed, i) alone, so as many as wanted
  /// cost no memory. Online training uses each index once.
  std::int64_t size = 0;
  std::uint64_t seed = 0;
  /// Held-out samples come from another stream: no index of it equals one of the training stream.
  bool held_out = false;
  /// Unset: the support is coordinates 0 .. k - 1; else k coordinates drawn with this seed.
  std::optional<std::uint64_t> support_seed = {};
};

class ParityDataset : public Dataset {
 public:
  explicit ParityDataset(const ParityOptions& options);

  std::int64_t size() const override { return options_.size; }
  std::int64_t classes() const override { return 2; }
  std::int32_t label(std::int64_t i) const override;
  std::uint64_t hash() const override { return hash_; }
  Shape input_shape() const override { return {options_.n}; }
  std::string describe() const override;
  /// Inputs (B, n) of options.dtype; normalisation and augmentation do not apply.
  Batch make_batch(std::span<const std::int64_t> samples,
                   const BatchOptions& options) const override;

  const std::vector<std::int64_t>& support() const { return support_; }  // ascending
  const ParityOptions& options() const { return options_; }

 private:
  /// Writes +-1 for sample i to x (n values); returns the target.
  std::int32_t draw(std::int64_t i, float* x) const;

  ParityOptions options_;
  std::vector<std::int64_t> support_;
  std::uint64_t hash_;
};

}  // namespace retort::nn
