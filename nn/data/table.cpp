#include "nn/data/table.h"

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/io/file.h"
#include "engine/runtime/allocator.h"
#include "nn/data/packed_file.h"

namespace retort::nn {
namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 30;

// -- CSV --------------------------------------------------------------------------------------------
// A text line by line, cell by cell, and where a message about it points to.
class CsvReader {
 public:
  CsvReader(std::string_view text, char delimiter, const std::string& name)
      : rest_(text), delimiter_(delimiter), name_(escaped(name, 4096)) {
    if (rest_.starts_with("\xef\xbb\xbf")) rest_.remove_prefix(3);
  }

  /// The cells of the next line that is not empty. False at the end.
  bool next(std::vector<std::string>* cells) {
    while (!rest_.empty()) {
      ++line_;
      const std::size_t end = rest_.find('\n');
      std::string_view line = rest_.substr(0, end);
      rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (line.empty()) continue;
      split(line, cells);
      return true;
    }
    return false;
  }

  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    fail(ErrorCode::kBadInput, name_, ":", line_, ": ", parts...);
  }

 private:
  void split(std::string_view line, std::vector<std::string>* cells) const {
    cells->clear();
    for (bool more = true; more;) {
      std::string& cell = cells->emplace_back();
      if (line.starts_with('"')) line = quoted(line.substr(1), cells->size(), &cell);
      const std::size_t end = std::min(line.find(delimiter_), line.size());
      cell += line.substr(0, end);
      more = end < line.size();
      line.remove_prefix(more ? end + 1 : end);
    }
  }

  // Takes what stands before the closing quote; returns what stands behind it.
  std::string_view quoted(std::string_view line, std::size_t column, std::string* cell) const {
    for (std::size_t i = 0; i < line.size(); ++i) {
      if (line[i] != '"') {
        *cell += line[i];
      } else if (line.substr(i + 1).starts_with('"')) {
        *cell += line[i++];
      } else {
        return line.substr(i + 1);
      }
    }
    refuse("column ", column, ": the quote is not closed in its line");
  }

  std::string_view rest_;
  char delimiter_;
  std::string name_;
  std::size_t line_ = 0;
};

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ') || text.starts_with('\t')) text.remove_prefix(1);
  while (text.ends_with(' ') || text.ends_with('\t')) text.remove_suffix(1);
  return text;
}

template <class T>
std::optional<T> number_of(std::string_view text) {
  text = trimmed(text);
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Rounded to the nearest f32; nothing for what is not finite there.
std::optional<float> finite_float(double value) {
  const auto rounded = static_cast<float>(value);
  return std::isfinite(rounded) ? std::optional(rounded) : std::nullopt;
}

// The place of the label among the cells of a line.
std::size_t label_column(const CsvOptions& options, const std::vector<std::string>& first,
                         const CsvReader& reader) {
  if (options.header)
    for (std::size_t c = 0; c < first.size(); ++c)
      if (trimmed(first[c]) == options.label) return c;
  const auto number = number_of<std::size_t>(options.label);
  if (!number || *number >= first.size())
    reader.refuse("expected a column '", escaped(options.label), "' of labels",
                  options.header ? ", as a name of this line or a number from 0" : "", " among ",
                  first.size(), " columns");
  return *number;
}

}  // namespace

Table parse_csv(std::string_view text, const CsvOptions& options, const std::string& name) {
  CsvReader reader(text, options.delimiter, name);
  Table table;
  std::vector<std::string> cells, heads;
  std::size_t label = 0, width = 0;
  while (reader.next(&cells)) {
    if (width == 0) {
      width = cells.size();
      if (width < 2) reader.refuse("expected a label and at least one number in a row");
      label = label_column(options, cells, reader);
      table.columns = static_cast<std::int64_t>(width) - 1;
      if (options.header) {
        heads = cells;
        for (std::size_t c = 0; c < width; ++c)
          if (c != label) table.names.emplace_back(trimmed(cells[c]));
        continue;
      }
    }
    if (cells.size() != width) reader.refuse("expected ", width, " cells, got ", cells.size());
    for (std::size_t c = 0; c < width; ++c) {
      const auto where = [&] {
        return join("column ", c + 1, heads.empty() ? "" : " (" + escaped(heads[c]) + ")");
      };
      if (c == label) {
        const auto value = number_of<std::int64_t>(cells[c]);
        if (!value || *value < 0 || *value >= kMostTableClasses)
          reader.refuse(where(), ": expected a label in [0, ", kMostTableClasses, "), got '",
                        escaped(cells[c]), "'");
        table.labels.push_back(static_cast<std::int32_t>(*value));
        continue;
      }
      const auto value = number_of<double>(cells[c]);
      const auto rounded = value ? finite_float(*value) : std::nullopt;
      if (!rounded)
        reader.refuse(where(), ": expected a finite number, got '", escaped(cells[c]), "'");
      table.values.push_back(*rounded);
    }
  }
  if (table.rows() == 0) reader.refuse("expected at least one row");
  return table;
}

// -- .npy -------------------------------------------------------------------------------------------
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

// -- the data set -----------------------------------------------------------------------------------
Standardize Standardize::of(const Table& table) {
  const auto n = static_cast<std::size_t>(table.columns);
  const auto rows = static_cast<double>(table.rows());
  Standardize s{std::vector<double>(n), std::vector<double>(n)};
  for (std::size_t i = 0; i < table.values.size(); ++i)
    s.mean[i % n] += static_cast<double>(table.values[i]) / rows;
  for (std::size_t i = 0; i < table.values.size(); ++i) {
    const double apart = static_cast<double>(table.values[i]) - s.mean[i % n];
    s.deviation[i % n] += apart * apart / rows;
  }
  for (double& deviation : s.deviation) deviation = deviation > 0 ? std::sqrt(deviation) : 1;
  return s;
}

void Standardize::apply(Table* table) const {
  const std::size_t n = mean.size();
  for (std::size_t i = 0; i < table->values.size(); ++i)
    table->values[i] = static_cast<float>((static_cast<double>(table->values[i]) - mean[i % n]) /
                                          deviation[i % n]);
}

TableDataset::TableDataset(Table table, std::int64_t classes) : table_(std::move(table)) {
  RETORT_CHECK(table_.rows() > 0 && table_.columns > 0 &&
                   table_.values.size() == static_cast<std::size_t>(table_.rows()) *
                                               static_cast<std::size_t>(table_.columns),
               "[table] expected rows of ", table_.columns, " numbers with a label each");
  for (std::size_t i = 0; i < table_.labels.size(); ++i)
    RETORT_CHECK_AS(kBadInput, table_.labels[i] >= 0 && table_.labels[i] < classes,
                    "[table] expected a label in [0, ", classes, "), got ", table_.labels[i],
                    " in row ", i);
  facts_.gives = Reads::kFeatures;
  facts_.size = facts_.epoch_size = table_.rows();
  facts_.classes = classes;
  facts_.input = {table_.columns};
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  const std::int64_t header[3] = {table_.rows(), table_.columns, classes};
  XXH3_64bits_update(&state, "table", 5);
  XXH3_64bits_update(&state, header, sizeof header);
  XXH3_64bits_update(&state, table_.values.data(), table_.values.size() * sizeof(float));
  XXH3_64bits_update(&state, table_.labels.data(), table_.labels.size() * sizeof(std::int32_t));
  hash_ = XXH3_64bits_digest(&state);
}

std::string TableDataset::describe() const {
  return join("table, ", size(), " rows of ", table_.columns, " numbers, ", classes(),
              " classes, hash ", hex(hash_));
}

std::shared_ptr<const Dataset> TableDataset::subset(std::span<const std::int64_t> samples) const {
  check_samples(samples);
  Table part;
  part.columns = table_.columns;
  part.names = table_.names;
  for (const std::int64_t i : samples) {
    const auto row = table_.values.begin() + i * table_.columns;
    part.values.insert(part.values.end(), row, row + table_.columns);
    part.labels.push_back(table_.labels[static_cast<std::size_t>(i)]);
  }
  return std::make_shared<TableDataset>(std::move(part), classes());
}

namespace {

class TableSource : public Source {
 public:
  TableSource(std::shared_ptr<const TableDataset> data, SourceOptions options)
      : data_(std::move(data)), options_(std::move(options)) {
    complete("table", {}, options_.treatment);
    for (const Reading& reading : options_.readings) complete("table", {}, reading.options);
  }

  const DataFacts& facts() const override { return data_->facts(); }
  const SourceOptions& options() const override { return options_; }

  Batch make(std::span<const std::int64_t> samples, std::uint32_t /*epoch*/) const override {
    const auto part = std::static_pointer_cast<const TableDataset>(data_->subset(samples));
    const Table& table = part->table();
    Batch batch;
    batch.sample.assign(samples.begin(), samples.end());
    batch.variant.resize(samples.size());
    const Tensor values = Tensor::from(table.values, {table.rows(), table.columns});
    for (std::size_t r = 0; r < options_.readings.size(); ++r) {
      const DType dtype = options_.readings[r].dtype;
      std::size_t same = 0;  // readings of one dtype share memory
      while (options_.readings[same].dtype != dtype) ++same;
      batch.inputs.push_back(same < r ? batch.inputs[same]
                                      : Inputs(values.to(dtype).to(options_.device)));
    }
    batch.targets = Tensor::from(table.labels, {table.rows()}, options_.device);
    return batch;
  }

 private:
  std::shared_ptr<const TableDataset> data_;
  SourceOptions options_;
};

CsvOptions csv_options(const Options& options) {
  return {options.text("delimiter")[0], options.flag("header"), options.text("label")};
}

bool is_npy(const std::string& file) { return file.ends_with(".npy") || file.ends_with(".npy.xz"); }

void append(const Table& more, const std::string& file, Table* all) {
  if (all->columns == 0) {
    *all = more;
    return;
  }
  RETORT_CHECK_AS(kBadInput, more.columns == all->columns, escaped(file, 4096), ": expected ",
                  all->columns, " numbers in a row as in the files before it, got ", more.columns);
  RETORT_CHECK_AS(kBadInput, more.names == all->names, escaped(file, 4096),
                  ": its columns are not named like those of the files before it");
  all->values.insert(all->values.end(), more.values.begin(), more.values.end());
  all->labels.insert(all->labels.end(), more.labels.begin(), more.labels.end());
}

Table first_rows(Table table, std::int64_t limit) {
  if (limit == 0 || limit >= table.rows()) return table;
  table.labels.resize(static_cast<std::size_t>(limit));
  table.values.resize(static_cast<std::size_t>(limit) * static_cast<std::size_t>(table.columns));
  return table;
}

// The rows of some files, the first `per_file` of each (0: all). `like` has the columns that they
// must have; null: nobody says.
Table read_tables(const DataRequest& request, const Strings& files, std::int64_t per_file,
                  const Table* like) {
  Table all;
  for (std::size_t i = 0; i < files.size(); ++i) {
    const auto content = [&](const std::string& file) {
      const std::string place =
          file.starts_with('/') ? file : folder_of(request, file, "") + "/" + file;
      return std::pair(place, read_packed(place, kMostBytes));
    };
    auto [place, text] = content(files[i]);
    Table table;
    if (is_npy(files[i])) {
      RETORT_CHECK(i + 1 < files.size() && is_npy(files[i + 1]), "[table] ",
                   escaped(files[i], 4096),
                   ": expected pairs of .npy files, numbers and then labels");
      const auto [y_place, y] = content(files[++i]);
      table = parse_npy_pair(text, place, y, y_place);
    } else {
      table = parse_csv(text, csv_options(request.options), place);
    }
    if (like != nullptr) {
      Table empty;
      empty.columns = like->columns;
      empty.names = like->names;
      append(table, place, &empty);
    }
    append(first_rows(std::move(table), per_file), place, &all);
  }
  return all;
}

std::shared_ptr<const Dataset> open_table(const DataRequest& request) {
  const Options& options = request.options;
  const Strings files = files_of(request, {});
  if (files.empty()) return nullptr;
  const bool is_train = request.split == "train";
  const std::int64_t per_file = is_train ? options.integer("train_per_file") : 0;
  const Strings& named = options.texts("columns_from");
  const Strings& from = named.empty() ? options.texts("train_files") : named;
  RETORT_CHECK(!from.empty(), "[table] expected data.train_files: they fix columns and classes");
  const Table columns = read_tables(request, from, 0, nullptr);
  Table rows =
      files == from && per_file == 0 ? columns : read_tables(request, files, per_file, &columns);
  rows = first_rows(std::move(rows), options.integer(request.split + "_limit"));
  if (options.flag("standardize")) Standardize::of(columns).apply(&rows);
  std::int64_t classes = options.integer("classes");
  if (classes == 0) classes = 1 + *std::max_element(columns.labels.begin(), columns.labels.end());
  return std::make_shared<TableDataset>(std::move(rows), classes);
}

}  // namespace

std::shared_ptr<const Source> TableDataset::source(const SourceOptions& options) const {
  return std::make_shared<TableSource>(
      std::static_pointer_cast<const TableDataset>(shared_from_this()), options);
}

DataKind table_kind() {
  DataKind kind;
  kind.names = {"table"};
  kind.gives = Reads::kFeatures;
  kind.doc = "rows of numbers with a class: CSV, or pairs of .npy files (numbers, then labels)";
  kind.options = file_options();
  std::vector<OptionSpec> own{
      text_option(
          "label", "label",
          "Column of the class, by its name in the first line or its number from 0 (jsonl: the "
          "field); for multiple choice of which one is right."),
      text_option("delimiter", ",", "Table: the character between the cells of a CSV file."),
      flag_option("header", true, "The first line of a file names the columns (table, tsv)."),
      flag_option("standardize", false,
                  "Table: columns less their mean, divided by their deviation, both over "
                  "data.train_files."),
      strings_option("columns_from", {},
                     "Table: files whose rows fix classes and standardisation instead of "
                     "data.train_files (limits count for neither)."),
      count_option("classes", 0, 0, kMostTableClasses, "classes",
                   "Labels are below this; 0: one more than the largest in data.train_files.")
          .with(kChangesCost)};
  for (OptionSpec& spec : own) kind.options.push_back(std::move(spec).not_in_arm());
  kind.check = [](const Options& options) -> std::optional<OptionFault> {
    const std::string& delimiter = options.text("delimiter");
    if (delimiter.size() != 1 ||
        std::string_view("\"\r\n.+-").find(delimiter[0]) != std::string_view::npos)
      return OptionFault{"delimiter", "expected one character such as ',', ';' or a tab"};
    if (!options.flag("header") && !number_of<std::size_t>(options.text("label")))
      return OptionFault{"label", "expected a column's number from 0 where header = false"};
    return std::nullopt;
  };
  kind.open = open_table;
  return kind;
}

}  // namespace retort::nn
