// Text as a data set: samples of ids, masked anew in each epoch where that is the task.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "nn/data/dataset.h"
#include "nn/data/text/token_samples.h"
#include "nn/text/masking.h"

namespace retort::nn {

struct TextOptions {
  std::string format = "text";  // for messages
  TextTask task = TextTask::kMaskedLm;
  std::int64_t classes = 0;  // of classification
  std::int64_t ids = 0;      // all are below it; 0: as the tokenizer has them
  double mask_share = 0.15, masked = 0.8, replaced = 0.1;
};

/// Samples of text. What a row of logits is about, and its target, is the task's:
///
///   masked_lm        the predicted positions, their ids: laid down by the file's labels, else drawn
///                    by mask_tokens(seed of the source, epoch, number in the whole data), so the
///                    masks do not depend on device, order, batch or subset
///   causal_lm        all positions but the last of each sequence; the id behind
///   classification   a row a sample; its label
///   multiple_choice  a row a sample, Inputs::choices sequences; its label
///
/// A sample may have no row at all (only special tokens; one id for causal_lm).
/// Batches    ids, starts and segments of the unpadded sequences; variant: of masking, a hash of
///            (seed, epoch).
class TextDataset : public Dataset {
 public:
  /// Errors    kUsage for a task that these samples do not allow: masking without [MASK] or a
  ///           tokenizer; kBadInput for a label that is not below `classes`.
  TextDataset(std::shared_ptr<const TokenSamples> samples, TextOptions options);

  const DataFacts& facts() const override { return facts_; }
  std::uint64_t hash() const override { return hash_; }
  std::string describe() const override;
  std::vector<std::int32_t> labels() const override;
  /// Scores of TextMeasures; "token_count": tokens as models read them, special ones included.
  std::vector<float> measured(const std::string& score) const override;
  std::string word(std::int32_t id) const override;
  std::shared_ptr<const Dataset> subset(std::span<const std::int64_t> samples) const override;
  std::shared_ptr<const Source> source(const SourceOptions& options) const override;

  const TextOptions& options() const { return options_; }
  /// Sample i of this data, and its number in the whole.
  TokenSample sample(std::int64_t i) const { return samples_->at(number(i)); }
  std::int64_t number(std::int64_t i) const {
    return kept_.empty() ? i : kept_[static_cast<std::size_t>(i)];
  }
  /// Whether positions are drawn; else the files lay them down.
  bool draws() const { return facts_.redrawn; }
  /// Errors    kUsage where nothing is drawn.
  MaskingRule masking() const;

 private:
  void finish(std::int64_t size);

  std::shared_ptr<const TokenSamples> samples_;
  TextOptions options_;
  std::vector<std::int64_t> kept_;  // of a subset: numbers in the whole
  DataFacts facts_;
  std::uint64_t hash_ = 0;
};

}  // namespace retort::nn
