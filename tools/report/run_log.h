// metrics.jsonl and curriculum files, read back into memory.
#pragma once
#include <filesystem>
#include <istream>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace retort::tools {

/// One line of metrics.jsonl: numbers and texts by key.
struct LogRecord {
  std::map<std::string, double> numbers;
  std::map<std::string, std::string> texts;

  std::optional<double> number(const std::string& key) const {
    const auto it = numbers.find(key);
    return it == numbers.end() ? std::nullopt : std::optional<double>(it->second);
  }
  std::string text(const std::string& key) const {
    const auto it = texts.find(key);
    return it == texts.end() ? "" : it->second;
  }
};

/// Lines of a JSONL file of flat objects. "nan", "inf", "-inf" become numbers, but for the names
/// under arm, split, stage, text and reason.
/// Errors   kIo if it cannot be read; kBadInput "FILE:LINE: ..." for a bad line that is not the
/// last one (a key twice is bad), a line of over 1 MiB, a file of over 4 GiB.
std::vector<LogRecord> read_run_log(const std::filesystem::path& file);
std::vector<LogRecord> parse_run_log(std::istream& in, const std::string& name);

/// One row of curriculum/<name>.csv, in feeding order.
struct CurriculumRow {
  double score = 0;
  int label = 0;  // -1: it has none
  bool correct = false;
};
std::vector<CurriculumRow> read_curriculum(const std::filesystem::path& file);
std::vector<CurriculumRow> parse_curriculum(std::istream& in, const std::string& name);

}  // namespace retort::tools
