// Tables: rows of numbers with a class each, from CSV files or pairs of .npy files.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "nn/data/registry.h"

namespace retort::nn {

/// N rows of n numbers, as a file has them.
struct Table {
  std::int64_t columns = 0;          // n
  std::vector<float> values;         // (N, n)
  std::vector<std::int32_t> labels;  // (N), at least 0
  std::vector<std::string> names;    // (n) of a CSV file with a header, else empty

  std::int64_t rows() const { return static_cast<std::int64_t>(labels.size()); }
};

/// Labels are below this, so that one damaged cell does not ask for a layer of 2^31 classes.
inline constexpr std::int32_t kMostTableClasses = 65536;

/// Behind a range of labels that is narrower than that.
inline constexpr const char* kWhoSays = ", as data.classes or the labels of the training files say";

struct CsvOptions {
  char delimiter = ',';
  bool header = true;           // the first line names the columns
  std::string label = "label";  // the column of the class: its name, or its number from 0
  std::int64_t classes = 0;     // labels are below it; 0: below kMostTableClasses
};

/// Reads CSV text: one row a line (LF or CRLF), as many cells in each; a cell may stand in double
/// quotes ("" is a quote inside); empty lines count for nothing, and so does a byte-order mark.
/// A number is rounded once, to the nearest f32.
///
/// Errors    kBadInput beginning "name:line:" with the column: a row of another length, a cell that
///           is no finite number, a label that is no integer in its range, a label column that is
///           not there, no row.
Table parse_csv(std::string_view text, const CsvOptions& options, const std::string& name);

/// Reads x (N, n) of little-endian f32 or f64 and y (N) of 8- to 64-bit integers in NumPy's .npy
/// format, versions 1 to 3, C order.
///
/// Errors    kBadInput beginning with the file's name: not such a file, cut or with bytes left
///           over, a value that is not finite, a label outside [0, kMostTableClasses), another
///           number of labels than rows.
Table parse_npy_pair(std::string_view x, const std::string& x_name, std::string_view y,
                     const std::string& y_name);

/// What makes columns comparable: value = (raw - mean) / deviation, by column.
struct Standardize {
  std::vector<double> mean, deviation;

  /// Of the rows: mean, and the root of the mean squared distance from it (1 where that is 0: a
  /// column that does not change becomes 0).
  static Standardize of(const Table& table);
  void apply(Table* table) const;  // rounded once
};

class TableDataset : public Dataset {
 public:
  /// Errors    kBadInput for a label that is not below `classes`, kUsage for an empty table.
  TableDataset(Table table, std::int64_t classes);

  const DataFacts& facts() const override { return facts_; }
  std::uint64_t hash() const override { return hash_; }
  std::string describe() const override;
  std::vector<std::int32_t> labels() const override { return table_.labels; }
  std::shared_ptr<const Dataset> subset(std::span<const std::int64_t> samples) const override;
  /// Nothing is done to the samples, and models read them all alike, but for the dtype.
  std::shared_ptr<const Source> source(const SourceOptions& options) const override;

  const Table& table() const { return table_; }

 private:
  Table table_;
  std::uint64_t hash_;
  DataFacts facts_;
};

/// "table", for the registry. Classes and standardisation are those of all rows of columns_from
/// (else train_files), limits aside, whatever split is opened; a label outside is refused.
DataKind table_kind();

}  // namespace retort::nn
