#include "nn/text/added_tokens.h"

#include <algorithm>

#include "nn/text/normalizer.h"
#include "nn/text/utf8.h"

namespace retort::nn {
namespace {

std::size_t white_space_before(std::string_view text, std::size_t end) {
  while (end > 0) {
    const Utf8Char c = utf8_before(text, end);
    if (c.bytes == 0 || !is_white_space(c.code)) break;
    end -= c.bytes;
  }
  return end;
}

std::size_t white_space_after(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    const Utf8Char c = utf8_at(text, at);
    if (c.bytes == 0 || !is_white_space(c.code)) break;
    at += c.bytes;
  }
  return at;
}

bool stands_alone(std::string_view text, std::size_t begin, std::size_t end) {
  return (begin == 0 || !is_word_character(utf8_before(text, begin).code)) &&
         (end == text.size() || !is_word_character(utf8_at(text, end).code));
}

Trie trie_of(const std::vector<std::string>& patterns) {
  std::vector<Trie::Entry> entries;
  for (std::size_t i = 0; i < patterns.size(); ++i)
    entries.emplace_back(patterns[i], static_cast<std::int32_t>(i));
  return Trie(std::move(entries));
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens,
                                   const std::vector<std::string>& patterns)
    : tokens_(std::move(tokens)), trie_(trie_of(patterns)) {
  for (const std::string& pattern : patterns)
    begins_[static_cast<std::uint8_t>(pattern.front())] = true;
  if (std::count(begins_.begin(), begins_.end(), true) == 1)
    only_begin_ =
        static_cast<int>(std::find(begins_.begin(), begins_.end(), true) - begins_.begin());
}

bool AddedTokenFinder::may_be_in(std::string_view text) const {
  if (empty()) return false;
  if (only_begin_ >= 0) return text.find(static_cast<char>(only_begin_)) != std::string_view::npos;
  return std::any_of(text.begin(), text.end(),
                     [&](char c) { return begins_[static_cast<std::uint8_t>(c)]; });
}

void AddedTokenFinder::split(std::string_view text,
                             const std::function<void(std::size_t, std::size_t)>& between,
                             const std::function<void(std::int32_t)>& token) const {
  std::size_t done = 0;  // what lies before was handed on
  for (std::size_t at = 0; at < text.size();) {
    if (!begins_[static_cast<std::uint8_t>(text[at])]) {
      ++at;
      continue;
    }
    Trie::Node node = trie_.root(), longest = 0;
    std::size_t end = at;
    for (std::size_t i = at; i < text.size() && text[i] != 0;) {
      node = trie_.step(node, static_cast<std::uint8_t>(text[i]));
      if (node == 0) break;
      ++i;
      if (Trie::ends(node)) longest = node, end = i;
    }
    if (longest == 0) {
      ++at;
      continue;
    }
    const AddedToken& found = tokens_[static_cast<std::size_t>(trie_.number(longest))];
    std::size_t begin = at;
    at = end;
    if (found.single_word && !stands_alone(text, begin, end)) continue;
    if (found.lstrip) begin = std::max(white_space_before(text, begin), done);
    if (found.rstrip) end = white_space_after(text, end);
    if (done < begin) between(done, begin);
    token(found.id);
    done = end;
  }
  if (done < text.size()) between(done, text.size());
}

}  // namespace retort::nn
