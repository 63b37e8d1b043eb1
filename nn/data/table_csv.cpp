// Tables from CSV text.
#include <algorithm>

#include "engine/io/file.h"
#include "nn/data/table.h"
#include "nn/data/table_cells.h"

namespace retort::nn {
namespace {

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
  const std::int64_t classes = options.classes > 0 ? options.classes : kMostTableClasses;
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
        if (!value || *value < 0 || *value >= classes)
          reader.refuse(where(), ": expected a label in [0, ", classes, ")",
                        options.classes > 0 ? kWhoSays : "", ", got '", escaped(cells[c]), "'");
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

}  // namespace retort::nn
