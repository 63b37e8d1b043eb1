// Words to pieces of a vocabulary, longest first.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "nn/text/trie.h"

namespace retort::nn {

/// Vocabularies have ids below this: a file cannot ask for more memory than that takes.
inline constexpr std::int32_t kMaxVocabulary = std::int32_t{1} << 20;

struct WordPieceOptions {
  std::string unknown = "[UNK]";
  std::string prefix = "##";         // of pieces that go on a word; may be empty
  std::size_t max_characters = 200;  // longer words are unknown
};

/// The vocabulary and its greedy search:
///
///   word = piece_1 piece_2 ...   piece_k the longest token that the rest of the word begins with
///                                (k > 1: the longest token "##" + x, where the rest begins with
///                                x);
///   the unknown token alone if for some k there is none, or the word is longer than
///   max_characters.
///
/// Cost    one look at memory for each byte of a piece and of what was tried beyond it.
/// Source  google-research/bert tokenization.py, WordpieceTokenizer; tokenizers
///         models/wordpiece/mod.rs.
/// Immutable: reading it from many threads is safe.
class WordPiece {
 public:
  /// tokens[id]; an empty string is an id without a token. Tokens hold no byte 0 and differ.
  /// Throws Error(kBadInput) if the unknown token is none of them.
  WordPiece(std::vector<std::string> tokens, WordPieceOptions options);

  std::int32_t size() const { return static_cast<std::int32_t>(tokens_.size()); }
  std::int32_t id(std::string_view token) const { return trie_.find(token); }  // -1: none
  const std::string& token(std::int32_t id) const {
    return tokens_.at(static_cast<std::size_t>(id));
  }
  std::int32_t unknown() const { return unknown_; }
  const WordPieceOptions& options() const { return options_; }

  /// Appends the pieces of one word, whose bytes are first mapped by `fold` (256 entries).
  void encode(std::string_view word, const std::uint8_t* fold,
              std::vector<std::int32_t>& ids) const;
  /// The same without a mapping.
  void encode(std::string_view word, std::vector<std::int32_t>& ids) const;

 private:
  std::vector<std::string> tokens_;
  WordPieceOptions options_;
  Trie trie_;
  Trie::Node inside_ = 0;  // where the prefix leads: pieces that go on a word
  std::int32_t unknown_ = -1;
};

}  // namespace retort::nn
