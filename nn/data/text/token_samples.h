// Samples as ids, by number: of a tokenised corpus, or of a file that has ids.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nn/data/text/text_files.h"
#include "nn/text/token_cache.h"
#include "nn/text/tokenizer.h"

namespace retort::nn {

/// A sequence as a model reads it, special tokens included.
struct TokenSequence {
  std::vector<std::int32_t> ids, types;  // of one length, at least 1
  std::vector<std::int32_t> labels;      // what is to be said where, kNotPredicted elsewhere; or
                                         // empty: nobody laid it down
};

/// A sample: one sequence, or one a choice.
struct TokenSample {
  std::vector<TokenSequence> sequences;
  std::int32_t label = -1;  // -1: none
};

/// Const and thread-safe.
class TokenSamples {
 public:
  virtual ~TokenSamples() = default;
  virtual std::int64_t size() const = 0;
  /// Errors    kUsage unless 0 <= i < size().
  virtual TokenSample at(std::int64_t i) const = 0;
  virtual std::int32_t label(std::int64_t i) const = 0;
  /// Tokens of all its sequences, special ones included, without reading them.
  virtual std::int64_t token_count(std::int64_t i) const = 0;
  virtual std::int64_t choices() const { return 1; }
  /// Of content and order.
  virtual std::string hash() const = 0;
  /// The ids of a sample's own text (of a pair its first, then its second), without special tokens
  /// and whole; nothing where they are not known.
  virtual std::vector<std::int32_t> text_ids(std::int64_t /*i*/) const { return {}; }
  /// Null: nobody knows what words the ids stand for.
  virtual const Tokenizer* tokenizer() const { return nullptr; }
  virtual std::int64_t tokens() const = 0;  // of all texts, before anything is cut
};

/// A sentence about what takes long ("tokenising FILE: 120000 texts"); called often.
using Tell = std::function<void(const std::string&)>;

struct CorpusOptions {
  TextFormat format;
  std::vector<std::string> files = {};   // as find_packed found them
  std::int64_t per_file = 0, limit = 0;  // the first samples of each file, of all; 0: all
  std::string cache = {};                // folder of token caches
  std::int64_t max_length = 512;         // ids of a sequence, special tokens included
  Truncation truncation = Truncation::kLongestFirst;
  /// Another way to the samples of a file than open_text(), and what it is in words that tell it
  /// from others; empty: none.
  std::function<std::unique_ptr<TextReader>(const std::string& path)> open = {};
  std::string opened_as = {};
};

/// The samples of a corpus, tokenised once: TokenCache under (files, format, tokenizer). Labels are
/// read from the files again.
///
/// Memory   12 bytes a text; while tokenising a shard more.
/// Errors   those of open_text() and TokenCache; kBadInput naming the sample where truncation would
///          leave nothing of a text, or no sample at all.
std::shared_ptr<const TokenSamples> tokenised_corpus(std::shared_ptr<const Tokenizer> tokenizer,
                                                     const CorpusOptions& options,
                                                     const Tell& tell = {});

/// Files of JSON lines with ids, held in memory (4 bytes an id, and 4 a label and a type where a
/// line has them).
///
///   {"input_ids": [..]}   and, each as long: "labels" [..] (-100: not predicted), "attention_mask"
///   [..] (1 real, 0 padding, which is at the end and dropped), "token_type_ids" [..] (without: 0);
///   for classification "label": k; for multiple choice lists of such lists and "label": k.
///
/// ids: they are below it; 0: not known. Errors    kBadInput with file and line.
struct IdFileOptions {
  TextTask task = TextTask::kMaskedLm;
  std::vector<std::string> files = {};
  std::int64_t per_file = 0, limit = 0, ids = 0, max_length = 0;
};
std::shared_ptr<const TokenSamples> samples_of_ids(const IdFileOptions& options);
/// One more than the largest id in them.
std::int64_t ids_of(const TokenSamples& samples);

}  // namespace retort::nn
