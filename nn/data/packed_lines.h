// A file that may be packed, front to back in bounded memory, line by line.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "engine/io/file.h"

namespace retort::nn {

/// The content of a file as it is, or unpacked if its name ends in .xz, .gz or .zst (several streams
/// or frames in a row are one content).
///
/// Memory   a block, and the decoder's own: at most 256 MiB for xz, 128 MiB for zstd.
/// Errors   Error(kIo) as file.h; Error(kBadInput) with the offset in the file if the archive is
///          damaged, cut, or holds another number of bytes than it says itself, or the content is
///          larger than max_bytes: what its reader can make something of. Error(kStopped) when a
///          stop is wanted.
class PackedReader {
 public:
  PackedReader(const std::string& path, std::uint64_t max_bytes);
  ~PackedReader();
  PackedReader(const PackedReader&) = delete;
  PackedReader& operator=(const PackedReader&) = delete;

  /// The next bytes of the content, at most `bytes`; 0: it has ended.
  std::size_t read(char* to, std::size_t bytes);
  const std::string& path() const { return path_; }

 private:
  class Decoder;
  class Plain;
  class Xz;
  class Gzip;
  class Zstd;
  std::string path_;
  std::uint64_t max_bytes_, given_ = 0;
  std::unique_ptr<Decoder> decoder_;
};

/// The lines of a text, without their ends (LF or CRLF); the last needs none. A byte-order mark
/// before the first is not part of it.
class PackedLines {
 public:
  static constexpr std::uint64_t kMostLine = std::uint64_t{1} << 26;
  static constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 40;

  explicit PackedLines(const std::string& path, std::uint64_t max_bytes = kMostBytes);

  /// False behind the last. Valid until the next call. Errors    those of PackedReader; kBadInput
  /// with line and byte for one that is longer than kMostLine, or is not UTF-8 or holds U+0000.
  bool next(std::string_view* line);
  std::uint64_t line() const { return line_; }  // of the line given last, from 1

  /// "FILE:LINE: byte B of the file: " and the parts, as Error(kBadInput); `at` is a place in the
  /// line given last, and B counts from 1 in the unpacked content.
  template <class... Parts>
  [[noreturn]] void refuse(std::size_t at, const Parts&... parts) const {
    fail(ErrorCode::kBadInput, escaped(reader_.path(), 4096), ":", line_, ": byte ",
         offset_ + at + 1, " of the file: ", parts...);
  }

 private:
  bool fill();
  PackedReader reader_;
  std::string buffer_;
  std::size_t begin_ = 0;      // of what is not given yet, in the buffer
  std::uint64_t offset_ = 0;   // of the line given last, in the content
  std::uint64_t next_at_ = 0;  // of what is not given yet
  std::uint64_t line_ = 0;
  bool ended_ = false;
};

}  // namespace retort::nn
