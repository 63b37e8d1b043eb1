// Text to ids as BERT does it: WordPiece from vocab.txt or tokenizer.json.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nn/text/added_tokens.h"
#include "nn/text/normalizer.h"
#include "nn/text/word_piece.h"

namespace retort::nn {

/// Which text gives way where a pair is too long (tokenizers, utils/truncation.rs).
enum class Truncation : std::uint8_t {
  kLongestFirst,  // the longer one down to the shorter, then both; the odd token to the longer
  kOnlyFirst,
  kOnlySecond
};

/// Ids with special tokens around them, and to which text each belongs.
struct Encoding {
  std::vector<std::int32_t> ids, types;
};

/// What stands around a text or a pair of texts: a piece is a text (its ids, all of one type) or
/// special tokens.
struct TemplatePiece {
  enum class Kind : std::uint8_t { kFirst, kSecond, kSpecial };
  Kind kind = Kind::kFirst;
  std::int32_t type = 0;
  std::vector<std::int32_t> ids;  // kSpecial
};
struct EncodingTemplate {
  std::vector<TemplatePiece> single, pair;
};

/// Everything a tokenizer is made of; the readers below fill it.
struct TokenizerParts {
  NormalizerOptions normalizer;
  WordPieceOptions word_piece;
  std::vector<std::string> tokens;   // by id; "" where an id has none
  std::vector<AddedToken> added;     // among the tokens, or with ids that they lack
  std::vector<std::string> special;  // tokens that stand for structure: never masked
  EncodingTemplate around;
};

/// Immutable once made: every function may be called from many threads at once.
///
///   ids = for each part of the text between added tokens: normalise, split at white space and
///         around punctuation, WordPiece each word; the ids of the added tokens in between.
///
/// Errors   Error(kBadInput) if the text is not UTF-8, naming the byte.
/// Cost     about 11 ns a byte of English.
/// Source   google-research/bert tokenization.py; tokenizers 0.23.
class Tokenizer {
 public:
  /// Google's format and semantics: one token a line, its id the number of lines before it; white
  /// space around it is not part of it. Words of more than 200 characters are unknown, "[MASK]" in
  /// text is text. Throws Error(kBadInput), with file, line and byte, for invalid UTF-8, U+0000, an
  /// entry twice, a byte order mark, more than kMaxVocabulary lines, no [UNK].
  static Tokenizer from_vocab(const std::string& path, bool lower_case);
  /// The same from memory; `name` is for messages.
  static Tokenizer parse_vocab(std::string_view text, const std::string& name, bool lower_case);

  /// Hugging Face's format, of which these parts are known: BertNormalizer, BertPreTokenizer,
  /// WordPiece, BertProcessing or TemplateProcessing or null, a WordPiece decoder (not used), added
  /// tokens with all their options. Padding and truncation are not looked at. Anything else throws
  /// Error(kBadInput) with the file and the JSON pointer of what is not understood.
  static Tokenizer from_json(const std::string& path);
  static Tokenizer parse_json(std::string_view text, const std::string& name);

  /// Throws Error(kBadInput) if the unknown token, or an added or special one, is not among the
  /// tokens.
  explicit Tokenizer(TokenizerParts parts);

  /// The ids of a text, without special tokens around it.
  std::vector<std::int32_t> encode(std::string_view text) const;
  void append_ids(std::string_view text, std::vector<std::int32_t>& ids) const;

  /// With special tokens, at most max_length ids in all (0: no limit): as many of the text's first
  /// ids as fit. Throws Error(kUsage) if max_length leaves no room for the special tokens, or
  /// vocab.txt has no [CLS] or [SEP].
  Encoding encode_single(std::string_view text, std::size_t max_length = 0) const;
  /// Throws Error(kBadInput) also if what only_first or only_second would take is all of a text, or
  /// more.
  Encoding encode_pair(std::string_view first, std::string_view second, std::size_t max_length = 0,
                       Truncation truncation = Truncation::kLongestFirst) const;
  /// The same around ids that are there already (a token cache).
  Encoding surround(std::vector<std::int32_t> first, std::size_t max_length = 0) const;
  Encoding surround(std::vector<std::int32_t> first, std::vector<std::int32_t> second,
                    std::size_t max_length = 0,
                    Truncation truncation = Truncation::kLongestFirst) const;

  /// Ids are in [0, size()); an embedding needs so many rows.
  std::int32_t size() const { return static_cast<std::int32_t>(special_.size()); }
  std::int32_t id(std::string_view token) const;    // -1: none
  const std::string& token(std::int32_t id) const;  // "": an id without one
  std::int32_t unknown_id() const { return words_.unknown(); }
  /// Whether the id stands for structure ([CLS], [PAD] ...) and not for text.
  bool is_special(std::int32_t id) const {
    return id >= 0 && id < size() && special_[static_cast<std::size_t>(id)] != 0;
  }
  /// The same of every id: for mask_tokens.
  std::span<const std::uint8_t> special() const { return special_; }
  /// XXH3-128 of vocabulary and rules: equal hashes give equal ids for every text.
  const std::string& hash() const { return hash_; }
  /// The text as words are sought in it. For messages and tests.
  std::string normalize(std::string_view text) const { return normalizer_.normalize(text); }

 private:
  void append_raw(std::string_view text, std::size_t begin, std::size_t end,
                  std::vector<std::int32_t>& ids) const;
  void append_words(std::string_view normalized, std::vector<std::int32_t>& ids) const;

  Normalizer normalizer_;
  WordPiece words_;
  std::vector<AddedToken> beyond_;  // added tokens that are not among the words
  AddedTokenFinder raw_, normalized_;
  std::array<std::int32_t, 128> punctuation_{};  // the id of each ASCII punctuation mark
  std::vector<std::uint8_t> special_;            // by id
  EncodingTemplate around_;
  std::string hash_;
};

}  // namespace retort::nn
