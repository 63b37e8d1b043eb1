#include "nn/text/word_piece.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "engine/io/file.h"
#include "kernels/common/check.h"

namespace retort::nn {
namespace {

Trie trie_of(const std::vector<std::string>& tokens) {
  std::vector<Trie::Entry> entries;
  entries.reserve(tokens.size());
  for (std::size_t id = 0; id < tokens.size(); ++id)
    if (!tokens[id].empty()) entries.emplace_back(tokens[id], static_cast<std::int32_t>(id));
  return Trie(std::move(entries));
}

bool longer_than(std::string_view word, std::size_t characters) {
  if (word.size() <= characters) return false;
  const auto starts = [](char c) { return (static_cast<unsigned char>(c) & 0xc0u) != 0x80u; };
  return static_cast<std::size_t>(std::count_if(word.begin(), word.end(), starts)) > characters;
}

}  // namespace

WordPiece::WordPiece(std::vector<std::string> tokens, WordPieceOptions options)
    : tokens_(std::move(tokens)), options_(std::move(options)), trie_(trie_of(tokens_)) {
  unknown_ = trie_.find(options_.unknown);
  RETORT_CHECK_AS(kBadInput, unknown_ >= 0, "the vocabulary has no entry '",
                  escaped(options_.unknown), "', which stands for unknown words");
  inside_ = trie_.walk(trie_.root(), options_.prefix);
}

void WordPiece::encode(std::string_view word, const std::uint8_t* fold,
                       std::vector<std::int32_t>& ids) const {
  if (longer_than(word, options_.max_characters)) {
    ids.push_back(unknown_);
    return;
  }
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(word.data());
  const std::size_t first = ids.size(), size = word.size();
  Trie::Node from = trie_.root();
  for (std::size_t at = 0; at < size;) {
    Trie::Node longest = 0;
    std::size_t end = at;
    Trie::Node node = from;
    for (std::size_t i = at; i < size;) {
      node = trie_.step(node, fold[bytes[i]]);
      if (node == 0) break;
      ++i;
      if (Trie::ends(node)) longest = node, end = i;
    }
    if (longest == 0) {
      ids.resize(first);
      ids.push_back(unknown_);
      return;
    }
    ids.push_back(trie_.number(longest));
    at = end;
    from = inside_;
  }
}

void WordPiece::encode(std::string_view word, std::vector<std::int32_t>& ids) const {
  static const std::array<std::uint8_t, 256> same = [] {
    std::array<std::uint8_t, 256> table;
    std::iota(table.begin(), table.end(), std::uint8_t{0});
    return table;
  }();
  // No token holds U+0000, and the trie cannot be asked about it.
  if (word.find('\0') != std::string_view::npos)
    ids.push_back(unknown_);
  else
    encode(word, same.data(), ids);
}

}  // namespace retort::nn
