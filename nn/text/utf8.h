// UTF-8, one character at a time (RFC 3629: no surrogates, nothing overlong, at most U+10FFFF).
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace retort::nn {

struct Utf8Char {
  char32_t code = 0;
  std::uint32_t bytes = 0;  // 0: there is no valid character here
};

/// The character at text[at]; at < text.size().
inline Utf8Char utf8_at(std::string_view text, std::size_t at) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data()) + at;
  const std::size_t left = text.size() - at;
  const auto tail = [&](std::size_t i) { return i < left && (p[i] & 0xc0u) == 0x80u; };
  const char32_t lead = p[0];
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xc2 || lead > 0xf4 || !tail(1)) return {};
  const char32_t second = p[1] & 0x3fu;
  if (lead < 0xe0) return {(lead & 0x1f) << 6 | second, 2};
  if (!tail(2)) return {};
  const char32_t third = p[2] & 0x3fu;
  if (lead < 0xf0) {
    const char32_t code = (lead & 0xf) << 12 | second << 6 | third;
    return code < 0x800 || (code >= 0xd800 && code < 0xe000) ? Utf8Char{} : Utf8Char{code, 3};
  }
  if (!tail(3)) return {};
  const char32_t code = (lead & 7) << 18 | second << 12 | third << 6 | (p[3] & 0x3fu);
  return code < 0x10000 || code > 0x10ffff ? Utf8Char{} : Utf8Char{code, 4};
}

/// The character that ends before text[end]; end > 0, and the text is valid.
inline Utf8Char utf8_before(std::string_view text, std::size_t end) {
  std::size_t at = end - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xc0u) == 0x80u) --at;
  return utf8_at(text, at);
}

inline void utf8_append(std::string& out, char32_t c) {
  const auto byte = [&](char32_t b) { out += static_cast<char>(b); };
  if (c < 0x80) return byte(c);
  if (c < 0x800) {
    byte(0xc0 | c >> 6);
  } else {
    if (c < 0x10000) {
      byte(0xe0 | c >> 12);
    } else {
      byte(0xf0 | c >> 18);
      byte(0x80 | (c >> 12 & 0x3f));
    }
    byte(0x80 | (c >> 6 & 0x3f));
  }
  byte(0x80 | (c & 0x3f));
}

/// Where the first byte stands that is no part of a valid character; npos if all are.
std::size_t utf8_fault(std::string_view text);

}  // namespace retort::nn
