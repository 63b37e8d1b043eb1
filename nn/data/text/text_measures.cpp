#include "nn/data/text/text_measures.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <unordered_map>
#include <unordered_set>

namespace retort::nn {
namespace {

constexpr std::size_t kDictionWords = 100;

enum class TokenKind : std::uint8_t { kBegins, kGoesOn, kMark, kSentenceEnd };

bool is_ascii_mark(unsigned char c) {
  return c > 0x20 && c < 0x7f && !(c >= '0' && c <= '9') && !(c >= 'A' && c <= 'Z') &&
         !(c >= 'a' && c <= 'z');
}

std::vector<TokenKind> kinds_of(const Tokenizer& tokenizer) {
  std::vector<TokenKind> kinds;
  for (std::int32_t id = 0; id < tokenizer.size(); ++id) {
    const std::string& token = tokenizer.token(id);
    const bool marks = !token.empty() && std::all_of(token.begin(), token.end(), [](char c) {
      return is_ascii_mark(static_cast<unsigned char>(c));
    });
    if (token == "." || token == "!" || token == "?")
      kinds.push_back(TokenKind::kSentenceEnd);
    else if (marks)
      kinds.push_back(TokenKind::kMark);
    else
      kinds.push_back(token.starts_with("##") ? TokenKind::kGoesOn : TokenKind::kBegins);
  }
  return kinds;
}

// The words of a text, each as a hash of its ids (64 bits: of 10^7 words two are alike with 3e-6).
struct Words {
  std::vector<std::uint64_t> words;
  std::int64_t sentences = 0;
};

Words words_of(std::span<const std::int32_t> ids, const std::vector<TokenKind>& kinds) {
  Words found;
  bool open = false;  // words since the last end of a sentence
  bool inside = false;
  for (const std::int32_t id : ids) {
    const TokenKind kind = kinds[static_cast<std::size_t>(id)];
    if (kind == TokenKind::kMark || kind == TokenKind::kSentenceEnd) {
      if (kind == TokenKind::kSentenceEnd && open) {
        ++found.sentences;
        open = false;
      }
      inside = false;
      continue;
    }
    if (kind == TokenKind::kBegins || !inside) found.words.push_back(0x9e3779b97f4a7c15u);
    std::uint64_t& word = found.words.back();
    word = (word ^ static_cast<std::uint64_t>(id)) * 0xff51afd7ed558ccdu;
    word ^= word >> 32;
    open = inside = true;
  }
  if (open) ++found.sentences;
  return found;
}

}  // namespace

TextMeasures measure_texts(const Tokenizer& tokenizer, std::int64_t texts,
                           const std::function<std::vector<std::int32_t>(std::int64_t)>& ids) {
  const std::vector<TokenKind> kinds = kinds_of(tokenizer);
  constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
  TextMeasures all;
  std::unordered_map<std::uint64_t, std::uint32_t> counts;
  double total = 0;
  for (std::int64_t i = 0; i < texts; ++i) {
    const std::vector<std::int32_t> text = ids(i);
    const Words found = words_of(text, kinds);
    for (const std::uint64_t word : found.words) ++counts[word];
    const double words = static_cast<double>(found.words.size());
    total += words;
    all.text_length.push_back(static_cast<float>(text.size()));
    all.sentence_length.push_back(
        found.words.empty() ? kNone
                            : static_cast<float>(words / static_cast<double>(found.sentences)));
    const std::size_t first = std::min(found.words.size(), kDictionWords);
    const std::unordered_set<std::uint64_t> distinct(
        found.words.begin(), found.words.begin() + static_cast<std::ptrdiff_t>(first));
    all.diction.push_back(first == 0 ? kNone
                                     : static_cast<float>(static_cast<double>(distinct.size()) /
                                                          static_cast<double>(first)));
  }
  for (std::int64_t i = 0; i < texts; ++i) {
    const Words found = words_of(ids(i), kinds);
    double sum = 0;
    for (const std::uint64_t word : found.words) sum -= std::log(counts.at(word) / total);
    all.word_frequency.push_back(
        found.words.empty() ? kNone
                            : static_cast<float>(sum / static_cast<double>(found.words.size())));
  }
  return all;
}

}  // namespace retort::nn
