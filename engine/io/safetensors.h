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
#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/io/file.h"
#include "engine/tensor/tensor.h"

namespace retort {

inline constexpr std::uint64_t kMaxSafetensorsHeader = 100'000'000;  // bytes
inline constexpr std::size_t kMaxSafetensorsMetadata = 65'536;       // keys

struct SafetensorsEntry {
  std::string name;
  std::string dtype_name;      // as in the file: "F32"
  std::optional<DType> dtype;  // none: a known type that tensors here do not have (BOOL, I8, ...)
  Shape shape;
  std::uint64_t begin = 0, end = 0;  // bytes, from the start of the data
};

/// The tensors of a header, in the order of their data; entries are made as they are looked at, and
/// a tensor takes 28 bytes and 8 a dimension beside the header's text, which is kept.
class SafetensorsEntries {
 public:
  std::size_t size() const { return records_.size(); }
  SafetensorsEntry operator[](std::size_t i) const;

  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = SafetensorsEntry;
    using difference_type = std::ptrdiff_t;
    using pointer = void;
    using reference = SafetensorsEntry;
    Iterator(const SafetensorsEntries* all, std::size_t at) : all_(all), at_(at) {}
    SafetensorsEntry operator*() const { return (*all_)[at_]; }
    Iterator& operator++() {
      ++at_;
      return *this;
    }
    bool operator==(const Iterator& other) const { return at_ == other.at_; }
    bool operator!=(const Iterator& other) const { return at_ != other.at_; }

   private:
    const SafetensorsEntries* all_;
    std::size_t at_;
  };
  Iterator begin() const { return {this, 0}; }
  Iterator end() const { return {this, size()}; }

 private:
  friend class SafetensorsHeaderBuilder;
  struct Record {
    std::uint64_t begin;
    std::uint32_t name_at, name_length;  // in text_, with kDecoded in decoded_
    std::uint32_t shape_at;              // in sizes_
    std::uint8_t type, rank;             // type: a place in the table of dtypes
  };
  static constexpr std::uint32_t kDecoded = std::uint32_t{1} << 31;

  std::string_view name(const Record& record) const;
  std::uint64_t bytes(const Record& record) const;
  std::optional<std::size_t> find(std::string_view name) const;
  friend struct SafetensorsHeader;

  std::string text_;     // the header's JSON
  std::string decoded_;  // names that it spells with escapes
  std::vector<Record> records_;
  std::deque<std::int64_t> sizes_;      // all shapes, one after the other
  std::vector<std::uint32_t> by_name_;  // places in records_
};

struct SafetensorsHeader {
  SafetensorsEntries entries;
  std::map<std::string, std::string> metadata;
  std::optional<SafetensorsEntry> find(std::string_view name) const;
};

/// Checks everything a header claims. `data_bytes` is what follows the header in the file. Errors
/// are Error(kBadInput) naming file, byte offset and tensor.
/// Cost      n log n in the number of tensors; memory see SafetensorsEntries.
SafetensorsHeader parse_safetensors_header(std::string json, std::uint64_t data_bytes,
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
/// The same into a file that the caller finishes. `hashes`, if given: XXH3-128 of each tensor's
/// bytes, in the order of the file.
void write_safetensors(FileWriter& writer, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {},
                       std::vector<std::pair<std::string, std::string>>* hashes = nullptr);

}  // namespace retort
