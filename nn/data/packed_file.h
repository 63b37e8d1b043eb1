// Files that may be stored as they are or packed with xz, gzip or zstd.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace retort::nn {

/// `path` if it exists, else the first of `path`.xz, .gz and .zst that does. Throws Error(kIo) naming
/// them if none.
std::string find_packed(const std::string& path);
bool packed_exists(const std::string& path);

/// The content of find_packed(path), unpacked if its name ends in .xz, .gz or .zst.
/// Throws Error(kIo) where the system refuses; Error(kBadInput), with the offset, if the archive is
/// damaged or cut, or the content is larger than max_bytes: what the format can hold, which its
/// reader knows. An archive that promises more is refused before anything is unpacked, one that
/// lies while it is. Error(kStopped) when a stop is wanted (engine/io/file.h).
/// Memory    the archive and the content.
std::string read_packed(const std::string& path, std::uint64_t max_bytes);

/// Unpacks an .xz archive held in memory (any filter chain of liblzma, delta included; several
/// streams in a row are one content). `name` is for messages.
std::string unpack_xz(std::string_view archive, const std::string& name, std::uint64_t max_bytes);

}  // namespace retort::nn
