#include "engine/io/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <utility>

#include "engine/io/json.h"

namespace retort {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

struct TypeName {
  const char* name;
  std::size_t bytes;
  std::optional<DType> dtype;
};
constexpr TypeName kTypes[] = {
    {"F64", 8, DType::kF64},      {"F32", 4, DType::kF32},      {"BF16", 2, DType::kBF16},
    {"F16", 2, DType::kF16},      {"I64", 8, DType::kI64},      {"I32", 4, DType::kI32},
    {"U8", 1, DType::kU8},        {"BOOL", 1, std::nullopt},    {"I8", 1, std::nullopt},
    {"I16", 2, std::nullopt},     {"U16", 2, std::nullopt},     {"U32", 4, std::nullopt},
    {"U64", 8, std::nullopt},     {"F8_E5M2", 1, std::nullopt}, {"F8_E4M3", 1, std::nullopt},
    {"F8_E8M0", 1, std::nullopt}, {"C64", 8, std::nullopt},
};

const TypeName* find_type(std::string_view name) {
  for (const TypeName& type : kTypes)
    if (name == type.name) return &type;
  return nullptr;
}

const char* file_name_of(DType dtype) {
  for (const TypeName& type : kTypes)
    if (type.dtype == dtype) return type.name;
  return "?";
}

// The order in which the public writer puts types, last first: its enum, counted.
int write_rank(DType dtype) {
  switch (dtype) {
    case DType::kI64: return 0;
    case DType::kF64: return 1;
    case DType::kF32: return 2;
    case DType::kI32: return 3;
    case DType::kBF16: return 4;
    case DType::kF16: return 5;
    case DType::kU8: return 6;
  }
  return 7;
}

std::size_t place_of(const TypeName* type) { return static_cast<std::size_t>(type - kTypes); }

}  // namespace

// Reads {"__metadata__": {string: string}, name: {dtype, shape, data_offsets}}.
class SafetensorsHeaderBuilder : public JsonHandler {
 public:
  explicit SafetensorsHeaderBuilder(std::string json) {
    all_.text_ = std::move(json);
    // Each tensor takes an object, and 48 characters at the least.
    const auto objects = std::count(all_.text_.begin(), all_.text_.end(), '{');
    all_.records_.reserve(
        std::min<std::size_t>(static_cast<std::size_t>(objects), all_.text_.size() / 48));
  }
  const std::string& text() const { return all_.text_; }

  // After the last event: order, repeated names, and what the data hold.
  SafetensorsHeader finish(std::uint64_t data_bytes, const std::string& place) {
    std::sort(all_.records_.begin(), all_.records_.end(), [&](const Record& a, const Record& b) {
      if (a.begin != b.begin) return a.begin < b.begin;
      const std::uint64_t bytes_a = all_.bytes(a), bytes_b = all_.bytes(b);
      return bytes_a != bytes_b ? bytes_a < bytes_b : all_.name(a) < all_.name(b);
    });
    refuse_repeated_names(place);
    refuse_holes(data_bytes, place);
    return {std::move(all_), std::move(metadata_)};
  }

  bool refuses_repeated_keys() const override { return level_ == Level::kTop && skip_ == 0; }
  void null() override { value("null"); }
  void boolean(bool) override { value("a boolean"); }
  void integer(std::int64_t) override { value("a negative number"); }
  void number(double) override { value("a number that is not a plain integer"); }
  void unsigned_integer(std::uint64_t v) override {
    if (skip_ > 0 || field_ == Field::kUnknown) return;
    if (level_ == Level::kShape) {
      if (shape_.rank() >= Shape::kMaxRank)
        refuse("expected at most ", Shape::kMaxRank, " dimensions");
      if (v > std::uint64_t{INT64_MAX}) refuse("dimension ", v, " is too large");
      shape_.push_back(static_cast<std::int64_t>(v));
    } else if (level_ == Level::kOffsets) {
      if (offsets_ == 2) refuse("expected two data_offsets, got more");
      (offsets_++ == 0 ? begin_ : end_) = v;
    } else {
      value("a number");
    }
  }
  void string(std::string& v) override {
    if (skip_ > 0 || field_ == Field::kUnknown) return;
    if (level_ == Level::kMetadata) {
      if (metadata_.size() == kMaxSafetensorsMetadata)
        fail(ErrorCode::kBadInput, place(), "expected at most ", kMaxSafetensorsMetadata,
             " keys of metadata");
      metadata_[key_] = std::move(v);
    } else if (level_ == Level::kEntry && field_ == Field::kDtype) {
      type_ = find_type(v);
      if (type_ == nullptr) refuse("unknown dtype '", escaped(v), "'");
    } else {
      value("a string");
    }
  }
  void key(std::string& name) override {
    if (skip_ > 0) return;
    if (level_ == Level::kTop) {
      name_ = name;
      name_end_ = offset_ - 8;  // behind the closing quote
      type_ = nullptr;
      shape_ = {};
      offsets_ = 0;
      has_shape_ = false;
    } else if (level_ == Level::kMetadata) {
      key_ = std::move(name);
    } else {
      field_ = name == "dtype"          ? Field::kDtype
               : name == "shape"        ? Field::kShape
               : name == "data_offsets" ? Field::kOffsets
                                        : Field::kUnknown;
    }
  }
  void begin_object() override {
    if (skip_ > 0 || field_ == Field::kUnknown) {
      ++skip_;
    } else if (level_ == Level::kStart) {
      level_ = Level::kTop;
    } else if (level_ == Level::kTop) {
      level_ = name_ == "__metadata__" ? Level::kMetadata : Level::kEntry;
      if (level_ == Level::kMetadata && std::exchange(has_metadata_, true))
        fail(ErrorCode::kBadInput, place(), "the key '__metadata__' appears twice");
    } else {
      value("an object");
    }
  }
  void end_object() override {
    if (skip_ > 0) {
      --skip_;
      return;
    }
    if (level_ == Level::kEntry) {
      finish_entry();
      field_ = Field::kNone;
    }
    level_ = level_ == Level::kTop ? Level::kDone : Level::kTop;
  }
  void begin_array() override {
    if (skip_ > 0 || field_ == Field::kUnknown) {
      ++skip_;
    } else if (level_ == Level::kEntry && field_ == Field::kShape) {
      level_ = Level::kShape;
      has_shape_ = true;
    } else if (level_ == Level::kEntry && field_ == Field::kOffsets) {
      level_ = Level::kOffsets;
    } else {
      value("an array");
    }
  }
  void end_array() override {
    if (skip_ > 0)
      --skip_;
    else
      level_ = Level::kEntry;
  }

 private:
  using Record = SafetensorsEntries::Record;
  enum class Level : std::uint8_t { kStart, kTop, kMetadata, kEntry, kShape, kOffsets, kDone };
  enum class Field : std::uint8_t { kNone, kDtype, kShape, kOffsets, kUnknown };

  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    fail(ErrorCode::kBadInput, place(), "tensor '", escaped(name_), "': ", parts...);
  }
  // A value where another kind is wanted; nothing inside a field that is not ours.
  void value(const char* got) const {
    if (skip_ > 0 || field_ == Field::kUnknown) return;
    if (level_ == Level::kStart)
      fail(ErrorCode::kBadInput, place(), "expected an object, got ", got);
    if (level_ == Level::kMetadata)
      fail(ErrorCode::kBadInput, place(), "metadata '", escaped(key_), "': expected a string, got ",
           got);
    refuse("unexpected ", got);
  }
  void finish_entry() {
    if (type_ == nullptr) refuse("has no dtype");
    if (!has_shape_) refuse("has no shape");
    if (offsets_ != 2) refuse("expected two data_offsets, got ", offsets_);
    std::int64_t bytes = static_cast<std::int64_t>(type_->bytes);
    bool fits = true;
    for (const std::int64_t size : shape_)
      fits = fits && !__builtin_mul_overflow(bytes, size, &bytes);
    if (!fits) refuse("a shape ", shape_, " of ", type_->name, " is too large");
    if (begin_ > end_ || end_ - begin_ != static_cast<std::uint64_t>(bytes))
      refuse("expected ", bytes, " bytes for ", shape_, " of ", type_->name, ", got data_offsets [",
             begin_, ", ", end_, "]");
    Record record{};
    record.begin = begin_;
    record.type = static_cast<std::uint8_t>(place_of(type_));
    record.rank = static_cast<std::uint8_t>(shape_.rank());
    record.shape_at = static_cast<std::uint32_t>(all_.sizes_.size());
    all_.sizes_.insert(all_.sizes_.end(), shape_.begin(), shape_.end());
    place_name(record);
    all_.records_.push_back(record);
  }
  // In the text where it is spelled there as it is, which it nearly always is.
  void place_name(Record& record) {
    record.name_length = static_cast<std::uint32_t>(name_.size());
    const std::uint64_t from = name_end_ - std::min<std::uint64_t>(name_end_, name_.size() + 1);
    if (std::string_view(all_.text_).substr(from, name_.size()) == name_) {
      record.name_at = static_cast<std::uint32_t>(from);
    } else {
      record.name_at = static_cast<std::uint32_t>(all_.decoded_.size());
      record.name_length |= SafetensorsEntries::kDecoded;
      all_.decoded_ += name_;
    }
  }

  void refuse_repeated_names(const std::string& place) {
    all_.by_name_.resize(all_.records_.size());
    std::iota(all_.by_name_.begin(), all_.by_name_.end(), 0u);
    const auto name = [&](std::uint32_t i) { return all_.name(all_.records_[i]); };
    std::sort(all_.by_name_.begin(), all_.by_name_.end(),
              [&](std::uint32_t a, std::uint32_t b) { return name(a) < name(b); });
    const auto twice =
        std::adjacent_find(all_.by_name_.begin(), all_.by_name_.end(),
                           [&](std::uint32_t a, std::uint32_t b) { return name(a) == name(b); });
    RETORT_CHECK_AS(kBadInput, twice == all_.by_name_.end(), place, ": the key '",
                    escaped(name(*twice)), "' appears twice");
  }

  void refuse_holes(std::uint64_t data_bytes, const std::string& place) const {
    std::uint64_t at = 0;
    const Record* before = nullptr;
    for (const Record& record : all_.records_) {
      const std::string_view name = all_.name(record);
      if (record.begin < at)
        fail(ErrorCode::kBadInput, place, ": tensor '", escaped(name),
             "': its data begin at offset ", record.begin, ", but those of '",
             escaped(all_.name(*before)), "' end at ", at, " (expected no overlaps)");
      RETORT_CHECK_AS(kBadInput, record.begin == at, place, ": tensor '", escaped(name),
                      "': expected its data at offset ", at, " (no holes), got ", record.begin);
      const std::uint64_t end = at + all_.bytes(record);
      RETORT_CHECK_AS(kBadInput, end <= data_bytes, place, ": tensor '", escaped(name),
                      "': its data end at ", end, ", but the file holds ", data_bytes,
                      " bytes of data");
      at = end;
      before = &record;
    }
    RETORT_CHECK_AS(kBadInput, at == data_bytes, place, ": the tensors cover ", at, " of ",
                    data_bytes, " bytes of data");
  }

  SafetensorsEntries all_;
  std::map<std::string, std::string> metadata_;
  Level level_ = Level::kStart;
  Field field_ = Field::kNone;
  int skip_ = 0;  // depth inside an unknown field
  std::string key_;
  bool has_metadata_ = false;
  // The tensor that is being read:
  std::string name_;
  std::uint64_t name_end_ = 0;  // in the text
  const TypeName* type_ = nullptr;
  Shape shape_;
  std::uint64_t begin_ = 0, end_ = 0;
  int offsets_ = 0;
  bool has_shape_ = false;
};

std::string_view SafetensorsEntries::name(const Record& record) const {
  const std::string& from = record.name_length & kDecoded ? decoded_ : text_;
  return std::string_view(from).substr(record.name_at, record.name_length & ~kDecoded);
}

std::uint64_t SafetensorsEntries::bytes(const Record& record) const {
  std::uint64_t bytes = kTypes[record.type].bytes;  // was seen to fit
  for (std::size_t i = 0; i < record.rank; ++i)
    bytes *= static_cast<std::uint64_t>(sizes_[record.shape_at + i]);
  return bytes;
}

SafetensorsEntry SafetensorsEntries::operator[](std::size_t i) const {
  const Record& record = records_[i];
  SafetensorsEntry entry;
  entry.name = name(record);
  entry.dtype_name = kTypes[record.type].name;
  entry.dtype = kTypes[record.type].dtype;
  for (std::size_t k = 0; k < record.rank; ++k) entry.shape.push_back(sizes_[record.shape_at + k]);
  entry.begin = record.begin;
  entry.end = record.begin + bytes(record);
  return entry;
}

std::optional<std::size_t> SafetensorsEntries::find(std::string_view wanted) const {
  const auto at = std::lower_bound(
      by_name_.begin(), by_name_.end(), wanted,
      [&](std::uint32_t i, std::string_view text) { return name(records_[i]) < text; });
  if (at == by_name_.end() || name(records_[*at]) != wanted) return std::nullopt;
  return *at;
}

std::optional<SafetensorsEntry> SafetensorsHeader::find(std::string_view name) const {
  const auto at = entries.find(name);
  if (!at) return std::nullopt;
  return entries[*at];
}

SafetensorsHeader parse_safetensors_header(std::string json, std::uint64_t data_bytes,
                                           const std::string& file) {
  const std::string place = escaped(file, 4096);
  RETORT_CHECK_AS(kBadInput, !json.empty() && json[0] == '{', place,
                  ": byte 8: expected a header that starts with '{'");
  RETORT_CHECK_AS(kBadInput, json.size() <= kMaxSafetensorsHeader, place,
                  ": expected a header of at most ", kMaxSafetensorsHeader, " bytes, got ",
                  json.size());
  SafetensorsHeaderBuilder builder(std::move(json));
  parse_json(builder.text(), builder, file, 8);
  return builder.finish(data_bytes, place);
}

SafetensorsReader::SafetensorsReader(const std::string& path) : file_(path) {
  const std::string place = escaped(path, 4096);
  RETORT_CHECK_AS(kBadInput, file_.size() >= 8, place, ": expected at least 8 bytes, got ",
                  file_.size());
  std::uint64_t length = 0;
  file_.read_at(0, std::as_writable_bytes(std::span(&length, 1)));
  RETORT_CHECK_AS(kBadInput, length <= kMaxSafetensorsHeader, place,
                  ": byte 0: expected a header of at most ", kMaxSafetensorsHeader, " bytes, got ",
                  length, " (is this a safetensors file?)");
  RETORT_CHECK_AS(kBadInput, length <= file_.size() - 8, place, ": byte 0: a header of ", length,
                  " bytes does not fit a file of ", file_.size());
  std::string json(static_cast<std::size_t>(length), '\0');
  file_.read_at(8, std::as_writable_bytes(std::span(json)));
  data_start_ = 8 + length;
  header_ = parse_safetensors_header(std::move(json), file_.size() - data_start_, path);
}

Tensor SafetensorsReader::read(const SafetensorsEntry& entry) const {
  RETORT_CHECK_AS(kBadInput, entry.dtype.has_value(), escaped(path(), 4096), ": tensor '",
                  escaped(entry.name), "' has the dtype ", entry.dtype_name,
                  ", which is not supported");
  const Tensor tensor = Tensor::empty(entry.shape, *entry.dtype);
  file_.read_at(data_start_ + entry.begin,
                std::span(static_cast<std::byte*>(tensor.raw()), tensor.bytes()));
  return tensor;
}

Tensor SafetensorsReader::read(std::string_view name) const {
  const auto entry = header_.find(name);
  RETORT_CHECK_AS(kBadInput, entry.has_value(), escaped(path(), 4096), ": no tensor '",
                  escaped(name), "'");
  return read(*entry);
}

NamedTensors read_safetensors(const std::string& path) {
  const SafetensorsReader reader(path);
  NamedTensors tensors;
  for (const SafetensorsEntry& entry : reader.header().entries)
    tensors.emplace_back(entry.name, reader.read(entry));
  return tensors;
}

void write_safetensors(FileWriter& writer, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata,
                       std::vector<std::pair<std::string, std::string>>* hashes) {
  std::vector<const std::pair<std::string, Tensor>*> order;
  for (const auto& named : tensors) {
    RETORT_CHECK(named.second.defined(), "[write_safetensors] expected a tensor for '", named.first,
                 "', got an empty handle");
    RETORT_CHECK(named.first != "__metadata__", "[write_safetensors] '__metadata__' is reserved");
    order.push_back(&named);
  }
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    const int ra = write_rank(a->second.dtype()), rb = write_rank(b->second.dtype());
    return std::tie(ra, a->first) < std::tie(rb, b->first);
  });
  std::vector<std::string_view> names;
  for (const auto* named : order) names.push_back(named->first);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  RETORT_CHECK(twice == names.end(), "[write_safetensors] the name '", *twice, "' appears twice");

  std::map<std::string, std::string> all = metadata;
  all.emplace("format", "pt");
  std::string header = "{\"__metadata__\":{";
  bool first = true;
  for (const auto& [key, value] : all) {
    header += (first ? "" : ",") + json_quote(key) + ":" + json_quote(value);
    first = false;
  }
  header += '}';
  std::uint64_t at = 0;
  for (const auto* named : order) {
    const Tensor& tensor = named->second;
    header += "," + json_quote(named->first) + ":{\"dtype\":\"" + file_name_of(tensor.dtype()) +
              "\",\"shape\":[";
    for (int i = 0; i < tensor.rank(); ++i)
      header += (i ? "," : "") + std::to_string(tensor.dim(i));
    header += "],\"data_offsets\":[" + std::to_string(at) + ",";
    at += tensor.bytes();
    header += std::to_string(at) + "]}";
  }
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');  // data start 8-byte aligned
  RETORT_CHECK(header.size() <= kMaxSafetensorsHeader, "[write_safetensors] a header of ",
               header.size(), " bytes is too large");
  const std::uint64_t length = header.size();
  writer.write(&length, sizeof length);
  writer.write(header);
  for (const auto* named : order) {
    const Tensor host = named->second.contiguous().to(Device::kCpu);
    if (host.numel() > 0) writer.write(host.raw(), host.bytes());
    if (hashes != nullptr)
      hashes->emplace_back(named->first,
                           hash_bytes({static_cast<const char*>(host.raw()), host.bytes()}));
  }
}

void write_safetensors(const std::string& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata) {
  AtomicFile file(path);
  write_safetensors(file.writer(), tensors, metadata);
  file.commit();
}

}  // namespace retort
