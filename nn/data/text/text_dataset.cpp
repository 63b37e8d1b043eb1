#include "nn/data/text/text_dataset.h"

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include <algorithm>

#include "kernels/common/philox.h"
#include "nn/data/text/text_measures.h"

namespace retort::nn {
namespace {

// Of (seed, epoch), never 0: that is a sample as it is stored.
std::uint32_t variant_of(std::uint64_t seed, std::uint32_t epoch) {
  return philox(seed, epoch, 0, 0, path_hash("masking variant")).v[0] | 1u;
}

// A batch as it grows, sample by sample.
class Gathered {
 public:
  explicit Gathered(TextTask task) : task_(task) {}

  void add(const TokenSample& sample, std::int32_t b) {
    for (const TokenSequence& s : sample.sequences) {
      const auto first = static_cast<std::int32_t>(ids_.size());
      ids_.insert(ids_.end(), s.ids.begin(), s.ids.end());
      types_.insert(types_.end(), s.types.begin(), s.types.end());
      starts_.push_back(static_cast<std::int32_t>(ids_.size()));
      for (std::size_t i = 0; i < s.labels.size(); ++i)
        if (s.labels[i] != kNotPredicted)
          add_row(first + static_cast<std::int32_t>(i), s.labels[i], b);
    }
    if (task_ == TextTask::kClassification || task_ == TextTask::kMultipleChoice)
      targets_.push_back(sample.label);
  }

  Batch take(std::int64_t choices, Device device) {
    Batch batch;
    const auto tensor = [&](const std::vector<std::int32_t>& values) {
      return Tensor::from(values, {static_cast<std::int64_t>(values.size())}, device);
    };
    Inputs in = Inputs::tokens(tensor(ids_), std::move(starts_), rows_);
    in.segments = tensor(types_);
    in.choices = choices;
    const bool by_position = task_ == TextTask::kMaskedLm || task_ == TextTask::kCausalLm;
    if (by_position && rows_.empty()) in.rows = Tensor::empty({0}, DType::kI32, device);
    batch.inputs.push_back(std::move(in));
    batch.targets = targets_.empty() ? Tensor::empty({0}, DType::kI32, device) : tensor(targets_);
    if (by_position) batch.set_rows(std::move(of_row_));
    return batch;
  }

 private:
  void add_row(std::int32_t position, std::int32_t target, std::int32_t b) {
    rows_.push_back(position);
    targets_.push_back(target);
    of_row_.push_back(b);
  }

  TextTask task_;
  std::vector<std::int32_t> ids_, types_, starts_ = {0}, rows_, targets_, of_row_;
};

class TextSource : public Source {
 public:
  TextSource(std::shared_ptr<const TextDataset> data, SourceOptions options)
      : data_(std::move(data)), options_(std::move(options)) {
    complete(data_->options().format, {}, options_.treatment);
    for (const Reading& reading : options_.readings)
      complete(data_->options().format, {}, reading.options);
  }

  const DataFacts& facts() const override { return data_->facts(); }
  const SourceOptions& options() const override { return options_; }

  std::vector<std::uint32_t> variants(std::span<const std::int64_t> samples,
                                      std::uint32_t epoch) const override {
    return std::vector<std::uint32_t>(samples.size(), !data_->draws() ? 0
                                                      : options_.masks_in_turn > 0
                                                          ? in_turn(epoch)
                                                          : variant_of(options_.seed, epoch));
  }

  Batch make(std::span<const std::int64_t> samples, std::uint32_t epoch) const override {
    const DataFacts& facts = data_->facts();
    Gathered gathered(facts.task);
    for (std::size_t b = 0; b < samples.size(); ++b) {
      RETORT_CHECK(samples[b] >= 0 && samples[b] < facts.size, "[data] expected a sample in [0, ",
                   facts.size, "), got ", samples[b]);
      TokenSample sample = data_->sample(samples[b]);
      for (TokenSequence& s : sample.sequences) lay_down(&s, samples[b], epoch);
      gathered.add(sample, static_cast<std::int32_t>(b));
    }
    Batch batch = gathered.take(facts.choices, options_.device);
    batch.sample.assign(samples.begin(), samples.end());
    batch.variant = variants(samples, epoch);
    // Every model reads the same ids.
    batch.inputs.resize(options_.readings.size(), batch.inputs[0]);
    for (std::size_t r = 0; r < batch.inputs.size(); ++r)
      batch.inputs[r].activations = options_.readings[r].dtype;
    return batch;
  }

 private:
  std::uint32_t in_turn(std::uint32_t pass) const {
    // Of no seed: another number than that of any masks drawn, in all likelihood.
    return variant_of(~static_cast<std::uint64_t>(options_.masks_in_turn), pass);
  }

  // What is asked of a sequence becomes its labels.
  void lay_down(TokenSequence* s, std::int64_t i, std::uint32_t epoch) const {
    if (data_->draws()) {
      MaskedSample masked =
          options_.masks_in_turn > 0
              ? mask_in_turn(s->ids, data_->masking(), epoch, options_.masks_in_turn)
              : mask_tokens(s->ids, data_->masking(), options_.seed, epoch,
                            static_cast<std::uint32_t>(data_->number(i)));
      s->ids = std::move(masked.ids);
      s->labels = std::move(masked.labels);
    } else if (data_->facts().task == TextTask::kCausalLm) {
      s->labels.assign(s->ids.begin() + 1, s->ids.end());
    } else if (data_->facts().task != TextTask::kMaskedLm) {
      s->labels.clear();
    }
  }

  std::shared_ptr<const TextDataset> data_;
  SourceOptions options_;
};

}  // namespace

TextDataset::TextDataset(std::shared_ptr<const TokenSamples> samples, TextOptions options)
    : samples_(std::move(samples)), options_(std::move(options)) {
  const Tokenizer* const tokenizer = samples_->tokenizer();
  facts_.gives = Reads::kTokens;
  facts_.task = options_.task;
  facts_.ids = options_.ids > 0       ? options_.ids
               : tokenizer != nullptr ? tokenizer->size()
                                      : ids_of(*samples_);
  facts_.choices = samples_->choices();
  switch (options_.task) {
    case TextTask::kMultipleChoice: facts_.classes = facts_.choices; break;
    case TextTask::kClassification: facts_.classes = options_.classes; break;
    default: facts_.classes = facts_.ids;
  }
  facts_.labelled =
      options_.task == TextTask::kClassification || options_.task == TextTask::kMultipleChoice;
  facts_.redrawn = options_.task == TextTask::kMaskedLm && tokenizer != nullptr;
  if (tokenizer != nullptr) {
    std::string words;
    for (std::int32_t id = 0; id < tokenizer->size(); ++id) words += tokenizer->token(id) + "\n";
    facts_.vocabulary = hash_bytes(words);
  }
  RETORT_CHECK(!facts_.redrawn || tokenizer->id("[MASK]") >= 0, "[", options_.format,
               "] masked_lm needs the token [MASK], which the vocabulary lacks");
  if (options_.task == TextTask::kClassification)
    for (std::int64_t i = 0; i < samples_->size(); ++i)
      RETORT_CHECK_AS(kBadInput, samples_->label(i) >= 0 && samples_->label(i) < facts_.classes,
                      "[", options_.format, "] expected a label in [0, ", facts_.classes, "), got ",
                      samples_->label(i), " of sample ", i + 1);
  finish(samples_->size());
}

void TextDataset::finish(std::int64_t size) {
  facts_.size = facts_.epoch_size = size;
  const Tokenizer* const tokenizer = samples_->tokenizer();
  const std::string all =
      join(samples_->hash(), "\n", tokenizer == nullptr ? "" : tokenizer->hash(), "\n",
           name_of(options_.task), "\n", facts_.classes, "\n", facts_.ids, "\n",
           options_.mask_share, "\n", options_.masked, "\n", options_.replaced);
  hash_ = XXH3_64bits(all.data(), all.size());
  if (!kept_.empty())
    hash_ = XXH3_64bits_withSeed(kept_.data(), kept_.size() * sizeof kept_[0], hash_);
}

MaskingRule TextDataset::masking() const {
  const Tokenizer* const tokenizer = samples_->tokenizer();
  RETORT_CHECK(draws(), "[", options_.format, "] nothing is masked here");
  return {.share = options_.mask_share,
          .masked = options_.masked,
          .replaced = options_.replaced,
          .mask_id = tokenizer->id("[MASK]"),
          .vocabulary = tokenizer->size(),
          .special = tokenizer->special()};
}

std::string TextDataset::describe() const {
  return join(options_.format, " for ", name_of(options_.task), ", ", size(), " samples",
              kept_.empty() ? join(" of ", samples_->tokens(), " tokens") : std::string(),
              ", hash ", hex(hash_));
}

std::vector<std::int32_t> TextDataset::labels() const {
  std::vector<std::int32_t> all;
  if (facts_.labelled)
    for (std::int64_t i = 0; i < size(); ++i) all.push_back(samples_->label(number(i)));
  return all;
}

std::vector<float> TextDataset::measured(const std::string& score) const {
  if (score == "token_count") {
    std::vector<float> counts;
    for (std::int64_t i = 0; i < size(); ++i)
      counts.push_back(static_cast<float>(samples_->token_count(number(i))));
    return counts;
  }
  if (samples_->tokenizer() == nullptr) {
    std::vector<float> length;
    if (score == "text_length")
      for (std::int64_t i = 0; i < size(); ++i)
        length.push_back(static_cast<float>(samples_->text_ids(number(i)).size()));
    return length;
  }
  TextMeasures all = measure_texts(*samples_->tokenizer(), size(), [this](std::int64_t i) {
    return samples_->text_ids(number(i));
  });
  if (score == "text_length") return std::move(all.text_length);
  if (score == "sentence_length") return std::move(all.sentence_length);
  if (score == "word_frequency") return std::move(all.word_frequency);
  if (score == "diction") return std::move(all.diction);
  return {};
}

std::string TextDataset::word(std::int32_t id) const {
  const Tokenizer* const tokenizer = samples_->tokenizer();
  return tokenizer == nullptr || id < 0 || id >= tokenizer->size() ? "" : tokenizer->token(id);
}

std::shared_ptr<const Dataset> TextDataset::subset(std::span<const std::int64_t> samples) const {
  check_samples(samples);
  RETORT_CHECK(!samples.empty(), "[data] expected a subset of at least one sample");
  auto part = std::make_shared<TextDataset>(*this);
  part->kept_.clear();
  for (const std::int64_t i : samples) part->kept_.push_back(number(i));
  part->finish(static_cast<std::int64_t>(samples.size()));
  return part;
}

std::shared_ptr<const Source> TextDataset::source(const SourceOptions& options) const {
  return std::make_shared<TextSource>(
      std::static_pointer_cast<const TextDataset>(shared_from_this()), options);
}

}  // namespace retort::nn
