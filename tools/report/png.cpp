#include "tools/report/png.h"

#include <algorithm>

#include "kernels/common/check.h"

namespace retort::tools {
namespace {

void put_byte(std::string* to, std::uint32_t value) {
  to->push_back(static_cast<char>(value & 255));
}

void put_big_endian(std::string* to, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) put_byte(to, value >> shift);
}

void put_chunk(std::string* to, const std::string& type, const std::string& data) {
  put_big_endian(to, static_cast<std::uint32_t>(data.size()));
  *to += type + data;
  put_big_endian(to, crc32_of(type + data));
}

// A zlib stream of stored blocks.
std::string stored(std::string_view bytes) {
  constexpr std::size_t kBlock = 65535;
  std::string out = "\x78\x01";
  for (std::size_t at = 0; at < bytes.size(); at += kBlock) {
    const std::string_view block = bytes.substr(at, kBlock);
    const auto size = static_cast<std::uint32_t>(block.size());
    put_byte(&out, at + kBlock >= bytes.size());  // the last one
    for (const std::uint32_t word : {size, ~size}) put_byte(&out, word), put_byte(&out, word >> 8);
    out += block;
  }
  put_big_endian(&out, adler32_of(bytes));
  return out;
}

}  // namespace

std::uint32_t crc32_of(std::string_view bytes) {
  std::uint32_t crc = ~0u;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0xedb88320u : 0);
  }
  return ~crc;
}

std::uint32_t adler32_of(std::string_view bytes) {
  constexpr std::uint32_t kBase = 65521;
  std::uint32_t a = 1, b = 0;
  for (const char c : bytes) {
    a = (a + static_cast<unsigned char>(c)) % kBase;
    b = (b + a) % kBase;
  }
  return b << 16 | a;
}

std::string png_of(std::int64_t width, std::int64_t height, std::span<const std::uint8_t> rgb) {
  RETORT_CHECK(width >= 1 && width <= 4096 && height >= 1 && height <= 4096 &&
                   rgb.size() == static_cast<std::size_t>(3 * width * height),
               "[png] expected 1 to 4096 pixels a side and 3 bytes each, got ", width, " x ",
               height, " and ", rgb.size(), " bytes");
  std::string head;
  put_big_endian(&head, static_cast<std::uint32_t>(width));
  put_big_endian(&head, static_cast<std::uint32_t>(height));
  head += std::string("\x08\x02\x00\x00\x00", 5);  // 8 bits, RGB, the only methods, not interlaced
  std::string lines;
  const auto line = static_cast<std::size_t>(3 * width);
  for (std::size_t at = 0; at < rgb.size(); at += line) {
    lines += '\0';  // no filter
    for (const std::uint8_t value : rgb.subspan(at, line)) put_byte(&lines, value);
  }
  std::string file = "\x89PNG\r\n\x1a\n";
  put_chunk(&file, "IHDR", head);
  put_chunk(&file, "IDAT", stored(lines));
  put_chunk(&file, "IEND", "");
  return file;
}

std::string base64(std::string_view bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    const std::size_t n = std::min<std::size_t>(3, bytes.size() - at);
    std::uint32_t group = 0;
    for (std::size_t i = 0; i < 3; ++i)
      group = group << 8 | (i < n ? static_cast<unsigned char>(bytes[at + i]) : 0u);
    for (std::size_t i = 0; i < 4; ++i) out += i <= n ? kDigits[group >> (18 - 6 * i) & 63] : '=';
  }
  return out;
}

}  // namespace retort::tools
