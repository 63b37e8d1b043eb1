// A frozen model that answers: online, or from a cache.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "distill/teacher/logit_cache.h"
#include "nn/module.h"

namespace retort::distill {

/// A model in evaluation mode whose parameters need no gradient. The constructor sets both, and
/// nobody may train or change the model afterwards. Progressive distillation has one Teacher per
/// checkpoint. Batch norms are folded into convolutions: where nobody else holds the model, for
/// good, so that its weights are in memory once; then model()'s parameters are no longer those that
/// hash() tells.
///
/// Threads   logits() and forward() may be called from several threads at once.
class Teacher {
 public:
  explicit Teacher(std::shared_ptr<nn::Model> model, std::string name = "teacher");

  const std::string& name() const { return name_; }
  const std::string& hash() const { return hash_; }
  /// Every parameter is 0: nothing was loaded.
  bool weights_are_zero() const { return weights_are_zero_; }
  std::int64_t classes() const { return model_->classes(); }
  nn::Model& model() const { return *model_; }

  /// Logits (N, V). No gradient is recorded.
  Tensor logits(const nn::Inputs& inputs) const;
  /// The same through the cache, if there is one and samples are named. Sample i of the inputs is
  /// samples[i] under variant variants[i] (empty: all 0). Only what is missing is computed. A row's
  /// logits are the same bits whatever batch it came in first. Texts: on the CPU, of models with one
  /// row of logits a sample.
  Tensor logits(const nn::Inputs& inputs, std::span<const std::int64_t> samples,
                std::span<const std::uint32_t> variants) const;
  /// The same into host memory (B V), without the inputs where every row is held: they are asked
  /// for if one is missing. There must be a cache.
  void cached_logits(const std::function<nn::Inputs()>& inputs,
                     std::span<const std::int64_t> samples, std::span<const std::uint32_t> variants,
                     std::span<float> values) const;
  /// Features and head (Outputs) of texts whose rows are words, through a cache that keeps features:
  /// the logits of row i, which is of sample of_row[i] (ascending), are logits_of() what comes back.
  /// A row is the same bits whatever batch it came in first. f32, on the CPU. inputs.rows say which.
  nn::Outputs features(const nn::Inputs& inputs, std::span<const std::int64_t> samples,
                       std::span<const std::uint32_t> variants,
                       std::span<const std::int32_t> of_row) const;
  /// What is wanted, for projections, terms and probes. No gradient is recorded.
  nn::Outputs forward(const nn::Inputs& inputs, const nn::Want& want) const;

  /// The cache must be of this teacher's hash and class count, or the width of its features. Null:
  /// online again.
  void use_cache(std::shared_ptr<LogitCache> cache);
  const std::shared_ptr<LogitCache>& cache() const { return cache_; }
  bool keeps(CachedRows rows) const { return cache_ != nullptr && cache_->key().rows == rows; }

 private:
  std::shared_ptr<nn::Model> model_;
  std::string name_, hash_;
  bool weights_are_zero_ = false;
  std::shared_ptr<LogitCache> cache_;
};

}  // namespace retort::distill
