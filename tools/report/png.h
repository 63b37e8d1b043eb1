// Small pictures for a page that fetches nothing.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace retort::tools {

/// A PNG file of 8-bit RGB pixels, row by row, not compressed: about 3 bytes a pixel.
/// Errors    kUsage unless both sides are 1 to 4096 and there are 3 * width * height bytes.
/// Source    W3C PNG (third edition); RFC 1950 and RFC 1951 (stored blocks).
std::string png_of(std::int64_t width, std::int64_t height, std::span<const std::uint8_t> rgb);

/// RFC 4648, with padding.
std::string base64(std::string_view bytes);

/// CRC-32 of PNG (ISO 3309), and Adler-32 (RFC 1950).
std::uint32_t crc32_of(std::string_view bytes);
std::uint32_t adler32_of(std::string_view bytes);

}  // namespace retort::tools
