// vocab.txt: Google's format.
#include <unordered_map>

#include "engine/io/file.h"
#include "kernels/common/check.h"
#include "nn/text/tokenizer.h"
#include "nn/text/utf8.h"

namespace retort::nn {
namespace {

constexpr std::uint64_t kMaxBytes = std::uint64_t{64} << 20;

// What Python's str.strip takes off: also U+001C to U+001F.
bool is_stripped(char32_t c) { return is_white_space(c) || (c >= 0x1c && c <= 0x1f); }

std::string_view stripped(std::string_view line) {
  while (!line.empty()) {
    const Utf8Char c = utf8_at(line, 0);
    if (!is_stripped(c.code)) break;
    line.remove_prefix(c.bytes);
  }
  while (!line.empty()) {
    const Utf8Char c = utf8_before(line, line.size());
    if (!is_stripped(c.code)) break;
    line.remove_suffix(c.bytes);
  }
  return line;
}

}  // namespace

Tokenizer Tokenizer::from_vocab(const std::string& path, bool lower_case) {
  return parse_vocab(read_file(path, kMaxBytes), path, lower_case);
}

Tokenizer Tokenizer::parse_vocab(std::string_view text, const std::string& name, bool lower_case) {
  TokenizerParts parts;
  std::unordered_map<std::string_view, std::size_t> line_of;
  const std::string file = escaped(name, 4096);
  // Line and byte count from 1, as editors do.
  const auto check = [&](bool ok, std::size_t line, std::size_t at, const auto&... what) {
    if (!ok) [[unlikely]]
      fail(ErrorCode::kBadInput, file, ":", line, ": byte ", at + 1, " of the file: ", what...);
  };
  check(!text.starts_with("\xef\xbb\xbf"), 1, 0, "expected no byte order mark");
  for (std::size_t at = 0, line = 1; at < text.size(); ++line) {
    const std::size_t newline = std::min(text.find('\n', at), text.size());
    const std::string_view whole = text.substr(at, newline - at);
    check(line <= kMaxVocabulary, line, at, "expected at most ", kMaxVocabulary, " lines");
    const std::size_t fault = utf8_fault(whole), zero = whole.find('\0');
    check(fault == std::string_view::npos, line, at + fault, "expected UTF-8");
    check(zero == std::string_view::npos, line, at + zero, "expected text, got U+0000");
    const std::string_view token = stripped(whole);
    const auto [before, is_new] = line_of.emplace(token, line);
    check(is_new, line, at, "the entry '", escaped(token), "' is on line ", before->second, " too");
    parts.tokens.emplace_back(token);
    at = newline + 1;
  }
  RETORT_CHECK_AS(kBadInput, line_of.contains(parts.word_piece.unknown), file, ": the ",
                  parts.tokens.size(), " lines hold no [UNK], which stands for unknown words");
  parts.normalizer.strip_accents = parts.normalizer.lower_case = lower_case;
  for (const char* token : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"})
    if (line_of.contains(token)) parts.special.emplace_back(token);
  if (line_of.contains("[CLS]") && line_of.contains("[SEP]")) {
    const auto special = [&](const char* token, std::int32_t type) {
      return TemplatePiece{
          TemplatePiece::Kind::kSpecial, type, {static_cast<std::int32_t>(line_of.at(token)) - 1}};
    };
    const TemplatePiece first{TemplatePiece::Kind::kFirst, 0, {}};
    const TemplatePiece second{TemplatePiece::Kind::kSecond, 1, {}};
    parts.around.single = {special("[CLS]", 0), first, special("[SEP]", 0)};
    parts.around.pair = {special("[CLS]", 0), first, special("[SEP]", 0), second,
                         special("[SEP]", 1)};
  }
  return Tokenizer(std::move(parts));
}

}  // namespace retort::nn
