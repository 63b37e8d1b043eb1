#include "engine/io/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>

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

// Reads {"__metadata__": {string: string}, name: {dtype, shape, data_offsets}}.
class HeaderHandler : public JsonHandler {
 public:
  SafetensorsHeader header;

  void null() override { value("null"); }
  void boolean(bool) override { value("a boolean"); }
  void integer(std::int64_t) override { value("a negative number"); }
  void number(double) override { value("a number that is not a plain integer"); }
  void unsigned_integer(std::uint64_t v) override {
    if (skip_ > 0 || field_ == Field::kUnknown) return;
    if (level_ == Level::kShape) {
      if (entry_.shape.rank() >= Shape::kMaxRank)
        refuse("expected at most ", Shape::kMaxRank, " dimensions");
      if (v > std::uint64_t{INT64_MAX}) refuse("dimension ", v, " is too large");
      entry_.shape.push_back(static_cast<std::int64_t>(v));
    } else if (level_ == Level::kOffsets) {
      if (offsets_ == 2) refuse("expected two data_offsets, got more");
      (offsets_++ == 0 ? entry_.begin : entry_.end) = v;
    } else {
      value("a number");
    }
  }
  void string(std::string& v) override {
    if (skip_ > 0 || field_ == Field::kUnknown) return;
    if (level_ == Level::kMetadata) {
      header.metadata[key_] = std::move(v);
    } else if (level_ == Level::kEntry && field_ == Field::kDtype) {
      const TypeName* type = find_type(v);
      if (type == nullptr) refuse("unknown dtype '", escaped(v), "'");
      entry_.dtype_name = std::move(v);
      entry_.dtype = type->dtype;
      element_bytes_ = type->bytes;
    } else {
      value("a string");
    }
  }
  void key(std::string& name) override {
    if (skip_ > 0) return;
    if (level_ == Level::kTop) {
      entry_ = {};
      offsets_ = 0;
      has_shape_ = false;
      entry_.name = name;
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
      level_ = entry_.name == "__metadata__" ? Level::kMetadata : Level::kEntry;
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
  enum class Level : std::uint8_t { kStart, kTop, kMetadata, kEntry, kShape, kOffsets, kDone };
  enum class Field : std::uint8_t { kNone, kDtype, kShape, kOffsets, kUnknown };

  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    fail(ErrorCode::kBadInput, place(), "tensor '", escaped(entry_.name), "': ", parts...);
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
    if (entry_.dtype_name.empty()) refuse("has no dtype");
    if (!has_shape_) refuse("has no shape");
    if (offsets_ != 2) refuse("expected two data_offsets, got ", offsets_);
    std::int64_t bytes = 1;
    bool fits = true;
    for (const std::int64_t size : entry_.shape)
      fits = fits && !__builtin_mul_overflow(bytes, size, &bytes);
    fits =
        fits && !__builtin_mul_overflow(bytes, static_cast<std::int64_t>(element_bytes_), &bytes);
    if (!fits) refuse("a shape ", entry_.shape, " of ", entry_.dtype_name, " is too large");
    if (entry_.begin > entry_.end || entry_.end - entry_.begin != static_cast<std::uint64_t>(bytes))
      refuse("expected ", bytes, " bytes for ", entry_.shape, " of ", entry_.dtype_name,
             ", got data_offsets [", entry_.begin, ", ", entry_.end, "]");
    header.entries.push_back(std::move(entry_));
    entry_ = {};
  }

  Level level_ = Level::kStart;
  Field field_ = Field::kNone;
  int skip_ = 0;  // depth inside an unknown field
  std::string key_;
  SafetensorsEntry entry_;
  std::size_t element_bytes_ = 0;
  int offsets_ = 0;
  bool has_shape_ = false;
};

}  // namespace

const SafetensorsEntry* SafetensorsHeader::find(std::string_view name) const {
  for (const SafetensorsEntry& entry : entries)
    if (entry.name == name) return &entry;
  return nullptr;
}

SafetensorsHeader parse_safetensors_header(std::string_view json, std::uint64_t data_bytes,
                                           const std::string& file) {
  const std::string place = escaped(file, 4096);
  RETORT_CHECK_AS(kBadInput, !json.empty() && json[0] == '{', place,
                  ": byte 8: expected a header that starts with '{'");
  HeaderHandler handler;
  parse_json(json, handler, file, 8);
  SafetensorsHeader header = std::move(handler.header);
  std::sort(header.entries.begin(), header.entries.end(),
            [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
              return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
            });
  std::uint64_t at = 0;
  for (const SafetensorsEntry& entry : header.entries) {
    RETORT_CHECK_AS(kBadInput, entry.begin == at, place, ": tensor '", escaped(entry.name),
                    "': expected its data at offset ", at, " (no holes, no overlaps), got ",
                    entry.begin);
    RETORT_CHECK_AS(kBadInput, entry.end <= data_bytes, place, ": tensor '", escaped(entry.name),
                    "': its data end at ", entry.end, ", but the file holds ", data_bytes,
                    " bytes of data");
    at = entry.end;
  }
  RETORT_CHECK_AS(kBadInput, at == data_bytes, place, ": the tensors cover ", at, " of ",
                  data_bytes, " bytes of data");
  return header;
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
  header_ = parse_safetensors_header(json, file_.size() - data_start_, path);
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
  const SafetensorsEntry* entry = header_.find(name);
  RETORT_CHECK_AS(kBadInput, entry != nullptr, escaped(path(), 4096), ": no tensor '",
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
                       const std::map<std::string, std::string>& metadata) {
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
  }
}

void write_safetensors(const std::string& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata) {
  AtomicFile file(path);
  write_safetensors(file.writer(), tensors, metadata);
  file.commit();
}

}  // namespace retort
