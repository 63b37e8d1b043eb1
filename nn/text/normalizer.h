// What BERT does to text before it looks words up: cleaning, spaces around CJK characters, accents
// off, lower case; and what splits words.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nn/text/unicode_tables.h"
#include "nn/text/utf8.h"

namespace retort::nn {

/// Whose rules hold where two implementations differ.
enum class TextRules : std::uint8_t {
  kReference,  // google-research/bert tokenization.py under Unicode 14.0.0: what vocab.txt means
  kRust        // the tokenizers library, 0.23: what tokenizer.json means
};

/// Where they differ (found by asking both about every scalar, make_unicode_tables.py):
///
///   private use        kept                            removed
///   U+2B820-U+2B91F    CJK                             not CJK
///   lower case         first, final sigma as in Greek  last, character by character
///   categories         Unicode 14                      mostly Unicode 8: newer punctuation and
///                                                      accents are letters
struct NormalizerOptions {
  TextRules rules = TextRules::kReference;
  bool clean_text = true;     // control characters, U+0000, U+FFFD out; white space to ' '
  bool separate_cjk = true;   // a space on both sides of each CJK ideograph
  bool strip_accents = true;  // NFD, then nonspacing marks (Mn) out
  bool lower_case = true;
};

/// A set of characters, made from run lengths (unicode_tables.h).
class CharacterSet {
 public:
  CharacterSet() = default;
  explicit CharacterSet(std::span<const std::int32_t> run_lengths);
  bool contains(char32_t c) const;

 private:
  std::vector<char32_t> bounds_;  // ascending: outside below the first, inside below the second ...
};

/// Immutable: reading it from many threads is safe. About 1.2 MB.
class Normalizer {
 public:
  explicit Normalizer(const NormalizerOptions& options);

  /// text[begin, end) normalised, onto `out`. Marks are not moved across `begin`, so it must be the
  /// start of the text or follow or be no mark; what lies around it in `text` may decide about a
  /// final sigma. Throws Error(kBadInput) with the byte's place in `text` if there is invalid
  /// UTF-8.
  void append(std::string_view text, std::size_t begin, std::size_t end, std::string& out) const;
  std::string normalize(std::string_view text) const;

  /// Of normalised text.
  bool is_space(char32_t c) const { return (traits_[c] & kWhite) != 0; }
  bool is_punctuation(char32_t c) const { return (traits_[c] & kPunctuation) != 0; }

  /// What an ASCII byte of text that is not normalised comes to. All bytes from 0x80 on are kOther.
  enum class Ascii : std::uint8_t { kLetter, kSpace, kPunctuation, kOther };
  Ascii ascii(std::uint8_t byte) const { return ascii_[byte]; }
  const std::uint8_t* ascii_lower() const { return ascii_lower_.data(); }  // of letters; 256 bytes

 private:
  // Traits of a character. kOrder is set where NFD's sorting of marks has to be looked at.
  static constexpr std::uint8_t kRemoved = 1, kBlank = 2, kCjk = 4, kMapped = 8, kMark = 16,
                                kOrder = 32, kPunctuation = 64, kWhite = 128;
  struct Mapping {
    char32_t from;
    std::uint32_t first, count;  // in mapped_
  };
  class Output;

  void set(detail::UnicodeTables::Numbers run_lengths, std::uint8_t trait, bool toggle);
  void add_mappings();
  std::span<const char32_t> mapping(char32_t c) const;
  int order(char32_t c) const;
  bool is_final_sigma(std::string_view text, std::size_t at) const;

  NormalizerOptions options_;
  std::vector<std::uint8_t> traits_;  // of each of 0x110000 code points
  std::vector<Mapping> mappings_;     // ascending
  std::vector<char32_t> mapped_;
  std::vector<std::pair<char32_t, int>> orders_;  // ascending: canonical combining classes
  CharacterSet cased_, ignorable_;
  std::array<Ascii, 256> ascii_{};
  std::array<std::uint8_t, 256> ascii_lower_{};
};

/// Unicode's White_Space: what splits words, \s of Rust's regular expressions. Python's str.split
/// also takes U+001C to U+001F, which clean_text removes before.
bool is_white_space(char32_t c);

/// \w of the regular expressions by which tokenizers decides about single_word.
bool is_word_character(char32_t c);

}  // namespace retort::nn
