// A corpus of texts, tokenised.
#include <algorithm>
#include <chrono>

#include "engine/io/file.h"
#include "kernels/common/check.h"
#include "nn/data/text/token_samples.h"

namespace retort::nn {
namespace {

// Samples of all files, cut where the options say.
class AllFiles {
 public:
  explicit AllFiles(const CorpusOptions& options) : options_(options) {}

  bool next(TextSample* sample) {
    if (options_.limit > 0 && given_ == options_.limit) return false;
    while (true) {
      if (!reader_) {
        if (file_ == options_.files.size()) return false;
        const std::string& path = options_.files[file_++];
        reader_ = options_.open ? options_.open(path) : open_text(options_.format, path);
        of_file_ = 0;
      }
      if ((options_.per_file == 0 || of_file_ < options_.per_file) && reader_->next(sample)) break;
      reader_.reset();
    }
    ++of_file_, ++given_;
    return true;
  }
  const std::string& file() const { return options_.files[file_ - 1]; }

 private:
  const CorpusOptions& options_;
  std::size_t file_ = 0;  // the next
  std::int64_t of_file_ = 0, given_ = 0;
  std::unique_ptr<TextReader> reader_;
};

class Corpus : public TokenSamples {
 public:
  Corpus(std::shared_ptr<const Tokenizer> tokenizer, const CorpusOptions& options, const Tell& tell)
      : tokenizer_(std::move(tokenizer)),
        texts_(options.format.texts_per_sample()),
        choice_(options.format.task == TextTask::kMultipleChoice),
        max_length_(static_cast<std::size_t>(options.max_length)),
        truncation_(options.truncation),
        hash_(hash_of(options)),
        around_one_(tokenizer_->surround({}).ids.size()),
        around_pair_(texts_ == 1 ? 0 : tokenizer_->surround({}, {}, 0).ids.size()),
        cache_(open(options, tell)) {
    if (options.format.labelled()) read_labels(options);
    RETORT_CHECK_AS(kBadInput, size() > 0, "[text] expected at least one sample in ",
                    escaped(options.files.front(), 4096));
    RETORT_CHECK_AS(kBadInput,
                    labels_.empty() || labels_.size() == static_cast<std::size_t>(size()),
                    "[text] the cache of ", escaped(options.files.front(), 4096), " has ", size(),
                    " samples and the files ", labels_.size());
    if (truncation_ != Truncation::kLongestFirst && texts_ > 1) check_cuts();
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(cache_.size() / texts_); }
  std::int64_t choices() const override {
    return choice_ ? static_cast<std::int64_t>(texts_) - 1 : 1;
  }
  std::string hash() const override {
    return join(hash_, " ", max_length_, " ", static_cast<int>(truncation_));
  }
  const Tokenizer* tokenizer() const override { return tokenizer_.get(); }
  std::int64_t tokens() const override { return static_cast<std::int64_t>(cache_.tokens()); }
  std::int32_t label(std::int64_t i) const override {
    return labels_.empty() ? -1 : labels_[static_cast<std::size_t>(i)];
  }

  TokenSample at(std::int64_t i) const override {
    RETORT_CHECK(i >= 0 && i < size(), "[text] expected a sample below ", size(), ", got ", i);
    TokenSample sample;
    sample.label = label(i);
    const std::uint64_t first = static_cast<std::uint64_t>(i) * texts_;
    // More than max_length ids of one text are never read, but what is cut from a pair depends on
    // how long both are.
    const auto most = static_cast<std::uint32_t>(texts_ == 1 ? max_length_ : 0);
    std::vector<std::int32_t> text = cache_.ids(first, most);
    if (texts_ == 1)
      sample.sequences.push_back(of(tokenizer_->surround(std::move(text), max_length_)));
    for (std::uint64_t second = 1; second < texts_; ++second)
      sample.sequences.push_back(
          of(tokenizer_->surround(text, cache_.ids(first + second), max_length_, truncation_)));
    return sample;
  }
  std::int64_t token_count(std::int64_t i) const override {
    const std::uint64_t first = static_cast<std::uint64_t>(i) * texts_;
    const auto cut = [this](std::size_t own, std::size_t around) {
      return static_cast<std::int64_t>(max_length_ == 0 ? own + around
                                                        : std::min(own + around, max_length_));
    };
    const std::size_t text = cache_.length(first);
    if (texts_ == 1) return cut(text, around_one_);
    std::int64_t count = 0;
    for (std::uint64_t second = 1; second < texts_; ++second)
      count += cut(text + cache_.length(first + second), around_pair_);
    return count;
  }
  std::vector<std::int32_t> text_ids(std::int64_t i) const override {
    const std::uint64_t first = static_cast<std::uint64_t>(i) * texts_;
    std::vector<std::int32_t> ids = cache_.ids(first);
    for (std::uint64_t second = 1; second < texts_; ++second) {
      const auto more = cache_.ids(first + second);
      ids.insert(ids.end(), more.begin(), more.end());
    }
    return ids;
  }

 private:
  static TokenSequence of(Encoding encoding) {
    return {std::move(encoding.ids), std::move(encoding.types), {}};
  }

  static std::string hash_of(const CorpusOptions& options) {
    std::string all = join(options.format.str(), "\n", options.opened_as, "\n", options.per_file,
                           "\n", options.limit);
    for (const std::string& file : options.files) all += "\n" + hash_file(file);
    return hash_bytes(all);
  }

  TokenCache open(const CorpusOptions& options, const Tell& tell) const {
    AllFiles files(options);
    TextSample sample;
    std::size_t given = 0;  // of the sample's texts
    const auto texts = [&](std::string& text) {
      if (given == sample.texts.size()) {
        given = 0;
        if (!files.next(&sample)) {
          sample.texts.clear();
          return false;
        }
      }
      text = std::move(sample.texts[given++]);
      return true;
    };
    auto told = std::chrono::steady_clock::now();
    const auto progress = [&](std::uint64_t count) {
      const auto now = std::chrono::steady_clock::now();
      give_up_if_stopped("the texts");
      if (!tell || now - told < std::chrono::seconds(2)) return;
      told = now;
      tell(join("tokenising ", escaped(files.file(), 4096), ": ", count, " texts"));
    };
    return TokenCache::open_or_build(options.cache, {hash_, tokenizer_->hash()}, *tokenizer_, texts,
                                     progress);
  }

  void read_labels(const CorpusOptions& options) {
    AllFiles files(options);
    for (TextSample sample; files.next(&sample);) {
      labels_.push_back(sample.label);
      RETORT_CHECK_AS(kBadInput, !choice_ || sample.label < choices(), "[text] sample ",
                      labels_.size(), " of ", escaped(options.files.front(), 4096),
                      ": expected a choice below ", choices(), ", got ", sample.label);
    }
  }

  // Where one text alone gives way it must be longer than what is to be cut.
  void check_cuts() const {
    const std::size_t around = around_pair_;
    for (std::uint64_t t = 0; t < cache_.size(); t += texts_)
      for (std::uint64_t k = 1; k < texts_; ++k) {
        const std::size_t a = cache_.length(t), b = cache_.length(t + k);
        const std::size_t gives = truncation_ == Truncation::kOnlyFirst ? a : b;
        RETORT_CHECK_AS(kBadInput,
                        a + b + around < max_length_ + gives || a + b + around <= max_length_,
                        "[text] sample ", t / texts_ + 1, ": ", a, " and ", b, " ids with ", around,
                        " special ones cannot be cut to data.max_length = ", max_length_,
                        " by data.truncation, which would leave nothing of a text");
      }
  }

  std::shared_ptr<const Tokenizer> tokenizer_;
  std::size_t texts_;
  bool choice_;
  std::size_t max_length_;
  Truncation truncation_;
  std::string hash_;
  std::size_t around_one_, around_pair_;  // special tokens
  TokenCache cache_;
  std::vector<std::int32_t> labels_;
};

}  // namespace

std::shared_ptr<const TokenSamples> tokenised_corpus(std::shared_ptr<const Tokenizer> tokenizer,
                                                     const CorpusOptions& options,
                                                     const Tell& tell) {
  RETORT_CHECK(tokenizer != nullptr && !options.files.empty(),
               "[text] expected a tokenizer and files");
  return std::make_shared<Corpus>(std::move(tokenizer), options, tell);
}

}  // namespace retort::nn
