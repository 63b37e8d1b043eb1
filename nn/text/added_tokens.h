// Tokens that are cut out of text before words are looked up, as tokenizer.json lists them.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "nn/text/trie.h"

namespace retort::nn {

struct AddedToken {
  std::string content;
  std::int32_t id = 0;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // and after it
  bool normalized = false;   // sought, normalised, in the normalised text; else in the raw text
  bool special = false;      // stands for structure and not for text
};

/// Finds the tokens of one kind (raw or normalised) in a text: from left to right, the longest that
/// begins where any does, none overlapping. One that single_word forbids is passed over as a whole.
/// Source: tokenizers, tokenizer/added_vocabulary.rs, find_matches.
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  /// patterns[i] (not empty, no byte 0, distinct) stands for tokens[i].
  AddedTokenFinder(std::vector<AddedToken> tokens, const std::vector<std::string>& patterns);

  bool empty() const { return tokens_.empty(); }
  /// Calls, in order, between(begin, end) for what lies between tokens (never empty) and token(id).
  void split(std::string_view text, const std::function<void(std::size_t, std::size_t)>& between,
             const std::function<void(std::int32_t)>& token) const;
  /// Whether a token may begin in `text` at all: quick.
  bool may_be_in(std::string_view text) const;

 private:
  std::vector<AddedToken> tokens_;
  Trie trie_;  // patterns to indices of tokens_
  std::array<bool, 256> begins_{};
  int only_begin_ = -1;  // the first byte of every pattern, if they share it
};

}  // namespace retort::nn
