// Files of JSON lines with ids.
#include <algorithm>

#include "engine/io/json_view.h"
#include "nn/data/packed_lines.h"
#include "nn/data/text/token_samples.h"
#include "nn/text/masking.h"

namespace retort::nn {
namespace {

constexpr std::int64_t kMostIds = std::int64_t{1} << 24;

// One array of a line: integers in [least, below).
std::vector<std::int32_t> integers(const JsonView& list, std::int64_t least, std::int64_t below) {
  std::vector<std::int32_t> values;
  values.reserve(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    const JsonView item = list.item(i);
    const Json& value = item.value();
    if (value.kind() != Json::Kind::kUnsigned && value.kind() != Json::Kind::kInteger)
      item.expected("an integer");
    const std::int64_t n = value.as_integer();
    if (n < least || n >= below)
      item.refuse("expected an id in [", std::max<std::int64_t>(least, 0), ", ", below, ")",
                  least < 0 ? " or -100" : "", ", got ", n);
    values.push_back(static_cast<std::int32_t>(n));
  }
  return values;
}

class IdFiles : public TokenSamples {
 public:
  explicit IdFiles(const IdFileOptions& options) : options_(options) {
    Hasher hasher;
    const std::string kind = name_of(options.task);
    hasher.update(kind.data(), kind.size());
    for (const std::string& path : options.files) {
      PackedLines lines(path);
      std::string_view line;
      for (std::int64_t n = 0; (options.per_file == 0 || n < options.per_file) &&
                               (options.limit == 0 || size() < options.limit) &&
                               lines.next(&line);) {
        if (line.empty()) continue;
        hasher.update(line.data(), line.size());
        add(line, join(path, ":", lines.line()));
        ++n;
      }
    }
    hasher.update(&options.max_length, sizeof options.max_length);
    hash_ = hasher.hex();
    RETORT_CHECK_AS(kBadInput, size() > 0, "[text] expected at least one sample in ",
                    escaped(options.files.front(), 4096));
  }

  std::int64_t size() const override {
    return static_cast<std::int64_t>(sequences_.size()) / choices_;
  }
  std::int64_t choices() const override { return choices_; }
  std::string hash() const override { return hash_; }
  std::int64_t tokens() const override { return tokens_; }
  std::int32_t label(std::int64_t i) const override {
    return labels_.empty() ? -1 : labels_[static_cast<std::size_t>(i)];
  }
  std::int64_t token_count(std::int64_t i) const override {
    std::int64_t count = 0;
    for (std::int64_t s = i * choices_; s < (i + 1) * choices_; ++s)
      count += static_cast<std::int64_t>(sequences_[static_cast<std::size_t>(s)].ids.size());
    return count;
  }
  TokenSample at(std::int64_t i) const override {
    RETORT_CHECK(i >= 0 && i < size(), "[text] expected a sample below ", size(), ", got ", i);
    TokenSample sample;
    sample.label = label(i);
    const auto first = sequences_.begin() + i * choices_;
    sample.sequences.assign(first, first + choices_);
    for (TokenSequence& s : sample.sequences) s.types.resize(s.ids.size());
    return sample;
  }
  std::vector<std::int32_t> text_ids(std::int64_t i) const override {
    std::vector<std::int32_t> all;
    for (const TokenSequence& s : at(i).sequences)
      all.insert(all.end(), s.ids.begin(), s.ids.end());
    return all;
  }

 private:
  void add(std::string_view line, const std::string& place) {
    const Json json = Json::parse(line, place);
    const JsonView root(json, place);
    root.only({"input_ids", "attention_mask", "token_type_ids", "labels", "label"});
    const JsonView ids = root.at("input_ids");
    const bool nested = options_.task == TextTask::kMultipleChoice;
    const std::int64_t choices = nested ? static_cast<std::int64_t>(ids.size()) : 1;
    if (nested && choices < 2) ids.expected("at least two choices");
    if (!sequences_.empty() && choices != choices_)
      ids.refuse("expected ", choices_, " choices as in the lines before, got ", choices);
    choices_ = choices;
    for (std::int64_t c = 0; c < choices; ++c) {
      const auto part = [&](const char* key) -> std::optional<JsonView> {
        const auto all = root.find(key);
        if (!all || !nested) return all;
        if (static_cast<std::int64_t>(all->size()) != choices)
          all->refuse("expected ", choices, " lists, got ", all->size());
        return all->item(static_cast<std::size_t>(c));
      };
      add_sequence(*part("input_ids"), part("attention_mask"), part("token_type_ids"),
                   options_.task == TextTask::kMaskedLm ? part("labels") : std::nullopt);
    }
    const bool labelled = nested || options_.task == TextTask::kClassification;
    if (options_.task == TextTask::kMaskedLm) root.at("labels");
    if (labelled)
      labels_.push_back(static_cast<std::int32_t>(root.at("label").integer(
          static_cast<std::uint64_t>(nested ? choices - 1 : kMostTextClasses - 1))));
  }

  void add_sequence(const JsonView& list, const std::optional<JsonView>& mask,
                    const std::optional<JsonView>& types, const std::optional<JsonView>& labels) {
    const std::int64_t below = options_.ids > 0 ? options_.ids : kMostIds;
    TokenSequence s;
    s.ids = integers(list, 0, below);
    if (s.ids.empty()) list.expected("at least one id");
    const auto same_length = [&](const JsonView& other) {
      if (other.size() != s.ids.size())
        other.refuse("expected ", s.ids.size(), " values, as many as input_ids, got ",
                     other.size());
    };
    std::size_t real = s.ids.size();
    if (mask) {
      same_length(*mask);
      const auto flags = integers(*mask, 0, 2);
      real = static_cast<std::size_t>(std::find(flags.begin(), flags.end(), 0) - flags.begin());
      if (real == 0) mask->expected("a 1 first");
      if (std::find(flags.begin() + static_cast<std::ptrdiff_t>(real), flags.end(), 1) !=
          flags.end())
        mask->expected("no 1 behind a 0: padding stands at the end");
    }
    if (types) {
      same_length(*types);
      s.types = integers(*types, 0, below);
    }
    if (labels) {
      same_length(*labels);
      s.labels = integers(*labels, kNotPredicted, below);
      for (std::size_t i = 0; i < s.labels.size(); ++i)
        if (s.labels[i] < 0 && s.labels[i] != kNotPredicted)
          labels->item(i).expected("an id or -100");
    }
    if (options_.max_length > 0)
      real = std::min(real, static_cast<std::size_t>(options_.max_length));
    s.ids.resize(real);
    if (!s.types.empty()) s.types.resize(real);
    if (!s.labels.empty()) s.labels.resize(real);
    tokens_ += static_cast<std::int64_t>(real);
    sequences_.push_back(std::move(s));
  }

  IdFileOptions options_;
  std::int64_t choices_ = 1, tokens_ = 0;
  std::vector<TokenSequence> sequences_;
  std::vector<std::int32_t> labels_;
  std::string hash_;
};

}  // namespace

std::shared_ptr<const TokenSamples> samples_of_ids(const IdFileOptions& options) {
  RETORT_CHECK(!options.files.empty(), "[text] expected files");
  return std::make_shared<IdFiles>(options);
}

std::int64_t ids_of(const TokenSamples& samples) {
  std::int32_t largest = 0;
  for (std::int64_t i = 0; i < samples.size(); ++i)
    for (const TokenSequence& s : samples.at(i).sequences) {
      largest = std::max(largest, *std::max_element(s.ids.begin(), s.ids.end()));
      if (!s.labels.empty())
        largest = std::max(largest, *std::max_element(s.labels.begin(), s.labels.end()));
    }
  return largest + std::int64_t{1};
}

}  // namespace retort::nn
