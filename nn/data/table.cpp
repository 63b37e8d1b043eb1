#include "nn/data/table.h"

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include <algorithm>
#include <cmath>

#include "engine/io/file.h"
#include "nn/data/packed_file.h"
#include "nn/data/table_cells.h"

namespace retort::nn {
namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 30;

}  // namespace

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

CsvOptions csv_options(const Options& options, std::int64_t classes) {
  return {options.text("delimiter")[0], options.flag("header"), options.text("label"), classes};
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

// A label of a .npy file that the training files do not have; parse_csv tells those of its own.
void check_labels(const Table& rows, std::int64_t classes, const std::string& place) {
  for (std::size_t i = 0; i < rows.labels.size(); ++i)
    RETORT_CHECK_AS(kBadInput, rows.labels[i] < classes, escaped(place, 4096), ": row ", i + 1,
                    ": expected a label in [0, ", classes, ")", kWhoSays, ", got ", rows.labels[i]);
}

// The rows of some files, the first `per_file` of each (0: all). `like` has the columns that they
// must have; null: nobody says. Their labels are below `classes`; 0: any.
Table read_tables(const DataRequest& request, const Strings& files, std::int64_t per_file,
                  const Table* like, std::int64_t classes) {
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
      if (classes > 0) check_labels(table, classes, y_place);
    } else {
      table = parse_csv(text, csv_options(request.options, classes), place);
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
  std::int64_t classes = options.integer("classes");
  const Table columns = read_tables(request, from, 0, nullptr, classes);
  if (classes == 0) classes = 1 + *std::max_element(columns.labels.begin(), columns.labels.end());
  Table rows = files == from && per_file == 0
                   ? columns
                   : read_tables(request, files, per_file, &columns, classes);
  rows = first_rows(std::move(rows), options.integer(request.split + "_limit"));
  if (options.flag("standardize")) Standardize::of(columns).apply(&rows);
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
