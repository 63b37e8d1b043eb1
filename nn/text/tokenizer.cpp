#include "nn/text/tokenizer.h"

#include <algorithm>

#include "engine/io/file.h"
#include "kernels/common/check.h"

namespace retort::nn {
namespace {

std::string content_hash(const TokenizerParts& parts) {
  Hasher hasher;
  const auto text = [&](std::string_view s) {
    hasher.update(s.data(), s.size());
    hasher.update("", 1);  // no string holds a byte 0: fields cannot run into each other
  };
  const auto numbers = [&](const auto&... n) { text(join((join(n, ' '))...)); };
  text("retort WordPiece 1, Unicode 14.0.0, tokenizers 0.23");
  const NormalizerOptions& n = parts.normalizer;
  numbers(static_cast<int>(n.rules), n.clean_text, n.separate_cjk, n.strip_accents, n.lower_case);
  text(parts.word_piece.unknown);
  text(parts.word_piece.prefix);
  numbers(parts.word_piece.max_characters, parts.tokens.size(), parts.added.size());
  for (const std::string& token : parts.tokens) text(token);
  for (const AddedToken& token : parts.added) {
    text(token.content);
    numbers(token.id, token.single_word, token.lstrip, token.rstrip, token.normalized);
  }
  return hasher.hex();
}

AddedTokenFinder finder(const std::vector<AddedToken>& added, bool normalized,
                        const Normalizer& normalizer) {
  std::vector<AddedToken> tokens;
  std::vector<std::string> patterns;
  for (const AddedToken& token : added) {
    if (token.normalized != normalized) continue;
    tokens.push_back(token);
    patterns.push_back(normalized ? normalizer.normalize(token.content) : token.content);
  }
  return {std::move(tokens), patterns};
}

std::size_t added_by(const std::vector<TemplatePiece>& pieces) {
  std::size_t count = 0;
  for (const TemplatePiece& piece : pieces) count += piece.ids.size();
  return count;
}

// Room for text among max_length ids; with no limit, room for everything.
std::size_t room_for_text(const std::vector<TemplatePiece>& pieces, std::size_t max_length) {
  RETORT_CHECK(!pieces.empty(),
               "[tokenizer] this vocabulary has no [CLS] and [SEP] to put around a text");
  if (max_length == 0) return SIZE_MAX;
  const std::size_t special = added_by(pieces);
  RETORT_CHECK(max_length >= special, "[tokenizer] expected a length of at least ", special,
               ", the special tokens alone, got ", max_length);
  return max_length - special;
}

void truncate_pair(std::size_t& first, std::size_t& second, std::size_t room,
                   Truncation truncation) {
  if (room == SIZE_MAX || first + second <= room) return;
  if (room == 0) {
    first = second = 0;
    return;
  }
  if (truncation == Truncation::kLongestFirst) {
    std::size_t& shorter = first <= second ? first : second;
    std::size_t& longer = first <= second ? second : first;
    longer = shorter > room ? shorter : std::max(shorter, room - shorter);
    if (shorter + longer > room) {
      shorter = room / 2;
      longer = room - shorter;
    }
    return;
  }
  const bool is_first = truncation == Truncation::kOnlyFirst;
  std::size_t& target = is_first ? first : second;
  const std::size_t excess = first + second - room;
  RETORT_CHECK_AS(kBadInput, target > excess, "[tokenizer] ",
                  is_first ? "only_first" : "only_second", ": expected a text of more than the ",
                  excess, " tokens that are too many, got ", target);
  target -= excess;
}

Encoding fill(const std::vector<TemplatePiece>& pieces, const std::vector<std::int32_t>& first,
              const std::vector<std::int32_t>& second) {
  Encoding all;
  for (const TemplatePiece& piece : pieces) {
    const auto& ids = piece.kind == TemplatePiece::Kind::kFirst    ? first
                      : piece.kind == TemplatePiece::Kind::kSecond ? second
                                                                   : piece.ids;
    all.ids.insert(all.ids.end(), ids.begin(), ids.end());
    all.types.insert(all.types.end(), ids.size(), piece.type);
  }
  return all;
}

}  // namespace

Tokenizer::Tokenizer(TokenizerParts parts)
    : normalizer_(parts.normalizer),
      words_(parts.tokens, parts.word_piece),
      raw_(finder(parts.added, false, normalizer_)),
      normalized_(finder(parts.added, true, normalizer_)),
      around_(std::move(parts.around)),
      hash_(content_hash(parts)) {
  std::size_t size = parts.tokens.size();
  for (const AddedToken& token : parts.added) {
    if (words_.id(token.content) < 0) beyond_.push_back(token);
    size = std::max(size, static_cast<std::size_t>(token.id) + 1);
  }
  special_.resize(size);
  for (const std::string& token : parts.special) {
    const std::int32_t id = this->id(token);
    RETORT_CHECK_AS(kBadInput, id >= 0, "the vocabulary has no entry '", escaped(token), "'");
    special_[static_cast<std::size_t>(id)] = 1;
  }
  for (std::size_t b = 0; b < punctuation_.size(); ++b) {
    std::vector<std::int32_t> ids;
    words_.encode(std::string(1, static_cast<char>(b)), ids);
    punctuation_[b] = ids.front();
  }
}

std::int32_t Tokenizer::id(std::string_view token) const {
  for (const AddedToken& added : beyond_)
    if (added.content == token) return added.id;
  return words_.id(token);
}

const std::string& Tokenizer::token(std::int32_t id) const {
  for (const AddedToken& added : beyond_)
    if (added.id == id) return added.content;
  RETORT_CHECK(id >= 0 && id < size(), "[tokenizer] expected an id below ", size(), ", got ", id);
  static const std::string none;
  return id < words_.size() ? words_.token(id) : none;
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> ids;
  append_ids(text, ids);
  return ids;
}

void Tokenizer::append_ids(std::string_view text, std::vector<std::int32_t>& ids) const {
  if (!raw_.may_be_in(text)) return append_raw(text, 0, text.size(), ids);
  raw_.split(
      text, [&](std::size_t begin, std::size_t end) { append_raw(text, begin, end, ids); },
      [&](std::int32_t id) { ids.push_back(id); });
}

// Words of ASCII, nearly all there are in English, are looked up where they stand. Everything else
// is normalised first, up to the next white space.
void Tokenizer::append_raw(std::string_view text, std::size_t begin, std::size_t end,
                           std::vector<std::int32_t>& ids) const {
  std::string normalized;
  if (!normalized_.empty()) {
    normalizer_.append(text, begin, end, normalized);
    const std::string_view all = normalized;
    return normalized_.split(
        all, [&](std::size_t b, std::size_t e) { append_words(all.substr(b, e - b), ids); },
        [&](std::int32_t id) { ids.push_back(id); });
  }
  using Ascii = Normalizer::Ascii;
  const auto kind = [&](std::size_t i) {
    return normalizer_.ascii(static_cast<std::uint8_t>(text[i]));
  };
  for (std::size_t i = begin; i < end;) {
    const Ascii what = kind(i);
    if (what == Ascii::kSpace) {
      ++i;
      continue;
    }
    if (what == Ascii::kPunctuation) {
      ids.push_back(punctuation_[static_cast<std::uint8_t>(text[i++])]);
      continue;
    }
    std::size_t word_end = i;
    while (word_end < end && kind(word_end) == Ascii::kLetter) ++word_end;
    if (word_end == end || kind(word_end) != Ascii::kOther) {
      words_.encode(text.substr(i, word_end - i), normalizer_.ascii_lower(), ids);
      i = word_end;
      continue;
    }
    while (word_end < end && kind(word_end) != Ascii::kSpace) ++word_end;
    normalized.clear();
    normalizer_.append(text, i, word_end, normalized);
    append_words(normalized, ids);
    i = word_end;
  }
}

void Tokenizer::append_words(std::string_view normalized, std::vector<std::int32_t>& ids) const {
  std::size_t word = 0;
  const auto finish = [&](std::size_t end) {
    if (word < end) words_.encode(normalized.substr(word, end - word), ids);
  };
  for (std::size_t i = 0; i < normalized.size();) {
    const Utf8Char c = utf8_at(normalized, i);
    const std::size_t next = i + c.bytes;
    const bool alone = normalizer_.is_punctuation(c.code);
    if (alone || normalizer_.is_space(c.code)) {
      finish(i);
      if (alone) words_.encode(normalized.substr(i, c.bytes), ids);
      word = next;
    }
    i = next;
  }
  finish(normalized.size());
}

Encoding Tokenizer::encode_single(std::string_view text, std::size_t max_length) const {
  return surround(encode(text), max_length);
}

Encoding Tokenizer::encode_pair(std::string_view first, std::string_view second,
                                std::size_t max_length, Truncation truncation) const {
  return surround(encode(first), encode(second), max_length, truncation);
}

Encoding Tokenizer::surround(std::vector<std::int32_t> first, std::size_t max_length) const {
  const std::size_t room = room_for_text(around_.single, max_length);
  if (first.size() > room) first.resize(room);
  return fill(around_.single, first, {});
}

Encoding Tokenizer::surround(std::vector<std::int32_t> first, std::vector<std::int32_t> second,
                             std::size_t max_length, Truncation truncation) const {
  std::size_t n_first = first.size(), n_second = second.size();
  truncate_pair(n_first, n_second, room_for_text(around_.pair, max_length), truncation);
  first.resize(n_first);
  second.resize(n_second);
  return fill(around_.pair, first, second);
}

}  // namespace retort::nn
