// A frozen model that answers with logits: online, or from a cache.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "distill/teacher/logit_cache.h"
#include "nn/module.h"

namespace retort::distill {

/// XXH3-128 over names, dtypes, shapes and bytes of all parameters and buffers: two models with one
/// hash give the same logits (of one architecture).
std::string weights_hash(const nn::Module& module);

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

  /// (B, ...) -> (B, V). No gradient is recorded.
  Tensor logits(const Tensor& inputs) const;
  /// The same through the cache, if there is one and samples are named. Row i of the inputs is
  /// samples[i] under augmentation key augment[i] (empty: all 0). Only rows that are missing are
  /// computed. A row's logits are the same bits whatever batch it came in first.
  Tensor logits(const Tensor& inputs, std::span<const std::int64_t> samples,
                std::span<const std::uint32_t> augment) const;
  /// The same into host memory (B V), without the images where every row is held: inputs is called
  /// if one is missing. There must be a cache.
  void cached_logits(const std::function<Tensor()>& inputs, std::span<const std::int64_t> samples,
                     std::span<const std::uint32_t> augment, std::span<float> values) const;
  /// Logits and hidden activations, for projections and probes. No gradient is recorded.
  nn::ForwardResult forward(const Tensor& inputs) const;
  /// The first `layers` hidden layers alone.
  nn::ForwardResult forward_hidden(const Tensor& inputs, std::int64_t layers) const;

  /// The cache must be of this teacher's hash and class count. Null: online again.
  void use_cache(std::shared_ptr<LogitCache> cache);
  const std::shared_ptr<LogitCache>& cache() const { return cache_; }

 private:
  std::shared_ptr<nn::Model> model_;
  std::string name_, hash_;
  bool weights_are_zero_ = false;
  std::shared_ptr<LogitCache> cache_;
};

}  // namespace retort::distill
