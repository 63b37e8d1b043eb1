// Tables from pairs of .npy files.
#include <algorithm>
#include <cstring>

#include "engine/io/file.h"
#include "nn/data/table.h"
#include "nn/data/table_cells.h"

namespace retort::nn {
namespace {

// An array as its file has it.
struct NpyArray {
  std::string name;  // of the file, for messages
  char kind = 'f';   // f, i, u
  std::size_t width = 4;
  Ints shape;
  std::string_view bytes;
};

template <class... Parts>
[[noreturn]] void refuse_npy(const std::string& name, const Parts&... parts) {
  fail(ErrorCode::kBadInput, escaped(name, 4096), ": ", parts...);
}

// The text behind 'key': in the dictionary of the header.
std::string_view value_behind(std::string_view header, std::string_view key,
                              const std::string& name) {
  const std::size_t at = header.find(join("'", key, "':"));
  if (at == std::string_view::npos) refuse_npy(name, "the .npy header has no '", key, "'");
  return trimmed(header.substr(at + key.size() + 3));
}

NpyArray parse_npy(std::string_view content, const std::string& name) {
  constexpr std::string_view kMagic = "\x93NUMPY";
  if (!content.starts_with(kMagic) || content.size() < 12)
    refuse_npy(name, "expected a .npy file, which begins with \\x93NUMPY");
  const auto byte = [&](std::size_t i) {
    return static_cast<std::size_t>(static_cast<unsigned char>(content[i]));
  };
  const std::size_t version = byte(6);
  if (version < 1 || version > 3) refuse_npy(name, "expected .npy version 1 to 3, got ", version);
  const std::size_t begin = version == 1 ? 10 : 12;
  const std::size_t length = version == 1
                                 ? byte(8) | byte(9) << 8
                                 : byte(8) | byte(9) << 8 | byte(10) << 16 | byte(11) << 24;
  if (length > content.size() - begin)
    refuse_npy(name, "the header of ", length, " bytes is cut after ", content.size() - begin);
  const std::string_view header = content.substr(begin, length);
  NpyArray array;
  array.name = name;
  array.bytes = content.substr(begin + length);
  const std::string_view type = value_behind(header, "descr", name).substr(0, 5);
  const bool known =
      type == "'<f4'" || type == "'<f8'" ||
      (type.size() == 5 && (type[1] == '<' || (type[1] == '|' && type[3] == '1')) &&
       (type[2] == 'i' || type[2] == 'u') &&
       std::string_view("1248").find(type[3]) != std::string_view::npos && type[4] == '\'');
  if (!known)
    refuse_npy(name, "expected little-endian f4, f8 or integers of 1, 2, 4 or 8 bytes, got ",
               escaped(type));
  array.kind = type[2];
  array.width = static_cast<std::size_t>(type[3] - '0');
  if (!value_behind(header, "fortran_order", name).starts_with("False"))
    refuse_npy(name, "expected rows one after the other (fortran_order False)");
  std::string_view shape = value_behind(header, "shape", name);
  const std::size_t close = shape.find(')');
  if (!shape.starts_with('(') || close == std::string_view::npos)
    refuse_npy(name, "the .npy header has no shape");
  shape = shape.substr(1, close - 1);
  std::uint64_t bytes = array.width;
  while (!trimmed(shape).empty()) {
    const std::size_t comma = std::min(shape.find(','), shape.size());
    const auto size = number_of<std::int64_t>(shape.substr(0, comma));
    if (!size || *size < 0 || array.shape.size() == 2)
      refuse_npy(name, "expected a shape of one or two sizes, got (", escaped(shape), ")");
    array.shape.push_back(*size);
    if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(*size), &bytes))
      refuse_npy(name, "the shape is larger than any file");
    shape.remove_prefix(std::min(comma + 1, shape.size()));
  }
  if (bytes != array.bytes.size())
    refuse_npy(name, "expected ", bytes, " bytes behind the header, got ", array.bytes.size());
  return array;
}

// Element i, as T has it on a little-endian machine.
template <class T>
T element(const NpyArray& array, std::size_t i) {
  T value;
  std::memcpy(&value, array.bytes.data() + i * sizeof(T), sizeof(T));
  return value;
}

double real(const NpyArray& array, std::size_t i) {
  return array.width == 4 ? static_cast<double>(element<float>(array, i))
                          : element<double>(array, i);
}

// Any integer; what does not fit is as wrong as -1.
std::int64_t integer(const NpyArray& array, std::size_t i) {
  const bool has_sign = array.kind == 'i';
  switch (array.width) {
    case 1: return has_sign ? element<std::int8_t>(array, i) : element<std::uint8_t>(array, i);
    case 2: return has_sign ? element<std::int16_t>(array, i) : element<std::uint16_t>(array, i);
    case 4:
      return has_sign ? element<std::int32_t>(array, i)
                      : std::int64_t{element<std::uint32_t>(array, i)};
    default: return element<std::int64_t>(array, i);
  }
}

}  // namespace

Table parse_npy_pair(std::string_view x, const std::string& x_name, std::string_view y,
                     const std::string& y_name) {
  const NpyArray values = parse_npy(x, x_name), labels = parse_npy(y, y_name);
  if (values.kind != 'f' || values.shape.size() != 2 || values.shape[0] < 1 || values.shape[1] < 1)
    refuse_npy(x_name, "expected an array (N, n) of f4 or f8 with at least one row and column");
  if (labels.kind == 'f' || labels.shape.size() != 1)
    refuse_npy(y_name, "expected an array (N) of integers");
  if (labels.shape[0] != values.shape[0])
    refuse_npy(y_name, "expected ", values.shape[0], " labels, as many as rows in ",
               escaped(x_name, 4096), ", got ", labels.shape[0]);
  Table table;
  table.columns = values.shape[1];
  const auto n = static_cast<std::size_t>(table.columns);
  const std::size_t rows = static_cast<std::size_t>(values.shape[0]);
  table.values.reserve(rows * n);
  table.labels.reserve(rows);
  for (std::size_t i = 0; i < rows * n; ++i) {
    const auto rounded = finite_float(real(values, i));
    if (!rounded)
      refuse_npy(x_name, "row ", i / n, ", column ", i % n, ": expected a finite number, got ",
                 real(values, i));
    table.values.push_back(*rounded);
  }
  for (std::size_t i = 0; i < rows; ++i) {
    const std::int64_t label = integer(labels, i);
    if (label < 0 || label >= kMostTableClasses)
      refuse_npy(y_name, "row ", i, ": expected a label in [0, ", kMostTableClasses, "), got ",
                 label);
    table.labels.push_back(static_cast<std::int32_t>(label));
  }
  return table;
}

}  // namespace retort::nn
