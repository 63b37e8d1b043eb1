// Which samples a step sees: a pure function of the step, so that a resumed run goes on as it was.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "curriculum/pacing/pacing.h"

namespace retort::curriculum {

enum class Feeding : std::uint8_t {
  kSequential,  // the order as it is, epoch after epoch; never reshuffled
  kShuffled,    // a new permutation each epoch: runs without curriculum
  kPaced,       // each batch uniform from the pacing function's prefix of the order
};

struct SamplerOptions {
  Feeding feeding = Feeding::kSequential;
  std::int64_t batch_size = 128;
  bool drop_last = false;           // leave out an incomplete last batch
  std::int64_t window_batches = 0;  // kSequential: shuffle inside windows of so many batches
  std::uint64_t seed = 0;
  Pacing pacing = {};  // kPaced only
  /// Instead of batch_size: so many tokens a batch, on average; sizes are those of all samples, by
  /// index. 0: by samples.
  std::int64_t batch_tokens = 0;
  std::vector<std::int64_t> sizes = {};
};

/// Batches that samples with so many tokens in all make: ceil(tokens / batch_tokens).
std::int64_t token_batches(std::int64_t tokens, std::int64_t batch_tokens);

/// Batches of an order. Step counts optimiser steps from 0; epoch = step / batches_per_epoch.
///
/// kSequential batch b of an epoch holds ranks [b B, (b+1) B). With window_batches = k the ranks of
/// each window of k B are permuted, anew each epoch, keyed by (seed, epoch, window).
/// With batch_tokens = T an epoch's order is cut where its tokens pass multiples of T: a sample
/// whose last token is the t-th of the epoch is in batch floor((t - 1) / T). Whatever the order, an
/// epoch has ceil(all / T) batches, none is empty, and none has more than T tokens and a sample.
/// kPaced draws B ranks below pacing.prefix_size(step) uniformly without replacement inside the
/// batch, keyed by (seed, step).
///
/// Errors    kUsage for an empty order, batch_size < 1 or above the number of samples; with
///           batch_tokens: a sample of more, one without a size, kPaced, drop_last or windows.
class Sampler {
 public:
  Sampler(std::vector<std::int64_t> order, const SamplerOptions& options);

  std::int64_t batches_per_epoch() const { return batches_; }
  std::int64_t size() const { return static_cast<std::int64_t>(order_.size()); }
  std::int64_t epoch_of(std::int64_t step) const { return step / batches_; }
  const SamplerOptions& options() const { return options_; }
  /// Sample indices of this step.
  std::vector<std::int64_t> batch(std::int64_t step) const;
  /// A new order for later steps (snapshot curricula); same size rules.
  void set_order(std::vector<std::int64_t> order);

 private:
  std::vector<std::int64_t> by_tokens(std::int64_t step) const;
  void check_sizes() const;

  std::vector<std::int64_t> order_;
  SamplerOptions options_;
  std::int64_t batches_ = 0;
  // kShuffled: the last epoch's permutation. One thread at a time per sampler.
  mutable std::int64_t cached_epoch_ = -1;
  mutable std::vector<std::int64_t> cached_;
  // batch_tokens: the order of cached_epoch_, and where its batches begin, and its end.
  mutable std::vector<std::int64_t> begins_;
};

/// Parts of 0 .. n-1 with sizes in the given ratio (3:2, say), drawn without replacement; each part
/// ascending. Part p ends at round(n * (r_0 + .. + r_p) / sum r).
std::vector<std::vector<std::int64_t>> split(std::int64_t n, std::span<const double> ratios,
                                             std::uint64_t seed);

/// The same inside every class, so that each part has the class shares of the whole (to within
/// one sample a class). A label may have any value.
std::vector<std::vector<std::int64_t>> stratified_split(std::span<const std::int32_t> labels,
                                                        std::span<const double> ratios,
                                                        std::uint64_t seed);

}  // namespace retort::curriculum
