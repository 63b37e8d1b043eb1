// Safetensors files: named tensors behind a JSON header.
//
//   u64 n (little-endian) | n bytes of JSON | data
//   {"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},...}
//
// Accepted is what the public Rust reader accepts, less tensors named twice, less more than 6
// dimensions, less types with elements below a byte. Offsets must cover the data without holes or
// overlaps, so no bytes can hide.
//
// Source: github.com/huggingface/safetensors, safetensors/src/tensor.rs
#pragma once
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/io/file.h"
#include "engine/tensor/tensor.h"

namespace retort {

inline constexpr std::uint64_t kMaxSafetensorsHeader = 100'000'000;  // bytes

struct SafetensorsEntry {
  std::string name;
  std::string dtype_name;      // as in the file: "F32"
  std::optional<DType> dtype;  // none: a known type that tensors here do not have (BOOL, I8, ...)
  Shape shape;
  std::uint64_t begin = 0, end = 0;  // bytes, from the start of the data
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // in the order of the data
  std::map<std::string, std::string> metadata;
  const SafetensorsEntry* find(std::string_view name) const;  // null if there is none
};

/// Checks everything a header claims. `data_bytes` is what follows the header in the file. Errors
/// are Error(kBadInput) naming file, byte offset and tensor.
SafetensorsHeader parse_safetensors_header(std::string_view json, std::uint64_t data_bytes,
                                           const std::string& file);

class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::string& path);
  const std::string& path() const { return file_.path(); }
  const SafetensorsHeader& header() const { return header_; }
  /// Copies one tensor out of the file, to the CPU. Memory is asked for only after the file was
  /// seen to hold as many bytes.
  Tensor read(const SafetensorsEntry& entry) const;
  /// By name. Throws Error(kBadInput) if there is none.
  Tensor read(std::string_view name) const;

 private:
  FileReader file_;
  SafetensorsHeader header_;
  std::uint64_t data_start_ = 0;
};

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

/// All tensors of a file, in the order of its data.
NamedTensors read_safetensors(const std::string& path);

/// Writes the file with AtomicFile. Tensors are ordered by dtype (largest alignment first), then by
/// name, as the public writer does; the metadata gets "format": "pt" unless it has one.
void write_safetensors(const std::string& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {});
/// The same into a file that the caller finishes.
void write_safetensors(FileWriter& writer, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace retort
