#include "tools/report/run_log.h"

#include <charconv>
#include <fstream>
#include <limits>

#include "engine/io/json.h"
#include "kernels/common/check.h"

namespace retort::tools {
namespace {

// A flat object only: anything nested is refused, so depth and memory are bounded by the line.
class FlatObject final : public JsonHandler {
 public:
  LogRecord record;

  void null() override {}
  void boolean(bool value) override { number(value ? 1 : 0); }
  void integer(std::int64_t value) override { number(static_cast<double>(value)); }
  void unsigned_integer(std::uint64_t value) override { number(static_cast<double>(value)); }
  void number(double value) override {
    expect(inside_);
    record.numbers[key_] = value;
  }
  void string(std::string& value) override {
    expect(inside_);
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    const bool name = key_ == "arm" || key_ == "split" || key_ == "stage" || key_ == "text" ||
                      key_ == "reason" || key_ == "task";
    if (!name && value == "nan") return number(std::numeric_limits<double>::quiet_NaN());
    if (!name && value == "inf") return number(kInfinity);
    if (!name && value == "-inf") return number(-kInfinity);
    record.texts[key_] = value;
  }
  void key(std::string& name) override { key_ = name; }
  void begin_object() override {
    expect(!inside_);
    inside_ = true;
  }
  void end_object() override {}
  void begin_array() override { expect(false); }
  void end_array() override {}

 private:
  void expect(bool flat) const {
    RETORT_CHECK_AS(kBadInput, flat, place(), "expected a flat object");
  }
  bool inside_ = false;
  std::string key_;
};

// What a long run writes is some hundred MiB.
constexpr std::uintmax_t kMaxFile = std::uintmax_t{4} << 30;
constexpr std::size_t kMaxLine = std::size_t{1} << 20;

// What an arm did in one task of a recipe is an arm of its own: "kd/finetune".
void tell_task(LogRecord* record) {
  const auto task = record->texts.find("task");
  if (task != record->texts.end() && !task->second.empty())
    record->texts["arm"] += "/" + task->second;
}

std::ifstream open(const std::filesystem::path& file) {
  std::error_code error;
  const std::uintmax_t bytes = std::filesystem::file_size(file, error);
  RETORT_CHECK_AS(kBadInput, error || bytes <= kMaxFile, file.string(), ": expected at most ",
                  kMaxFile, " bytes, got ", bytes);
  std::ifstream in(file);
  RETORT_CHECK_AS(kIo, in.good(), "cannot read ", file.string());
  return in;
}

// False at the end. No line makes memory grow beyond its cap.
bool next_line(std::istream& in, const std::string& name, std::int64_t number, std::string* line) {
  line->clear();
  for (int c = in.get(); c != std::istream::traits_type::eof(); c = in.get()) {
    if (c == '\n') return true;
    RETORT_CHECK_AS(kBadInput, line->size() < kMaxLine, name, ":", number,
                    ": expected lines of at most ", kMaxLine, " bytes");
    line->push_back(static_cast<char>(c));
  }
  return !line->empty();
}

}  // namespace

std::vector<LogRecord> parse_run_log(std::istream& in, const std::string& name) {
  std::vector<LogRecord> records;
  std::string line, pending_error;
  for (std::int64_t number = 1; next_line(in, name, number, &line); ++number) {
    RETORT_CHECK_AS(kBadInput, pending_error.empty(), pending_error);
    if (line.empty()) continue;
    FlatObject handler;
    try {
      parse_json(line, handler, join(name, ":", number), 0, 1);
      records.push_back(std::move(handler.record));
      tell_task(&records.back());
    } catch (const Error& error) {
      pending_error = error.what();  // forgiven on the last line
    }
  }
  return records;
}

std::vector<LogRecord> read_run_log(const std::filesystem::path& file) {
  std::ifstream in = open(file);
  return parse_run_log(in, file.string());
}

namespace {

constexpr double kNoLabel = -0.5;  // nothing that a file can mean

}  // namespace

std::vector<CurriculumRow> parse_curriculum(std::istream& in, const std::string& name) {
  std::vector<CurriculumRow> rows;
  std::string line;
  next_line(in, name, 1, &line);  // rank,index,label,score,correct,group
  for (std::int64_t number = 2; next_line(in, name, number, &line); ++number) {
    if (line.empty()) continue;
    double field[5] = {};
    const char* at = line.data();
    const char* const end = at + line.size();
    for (double& value : field) {
      // Who scored by a file or without labels was neither right nor wrong; texts have no class.
      const bool may_lack = &value == &field[2] || &value == &field[4];
      if (may_lack && at != end && *at == ',') {
        value = &value == &field[4] ? 1 : kNoLabel;
        ++at;
        continue;
      }
      const auto [next, status] = std::from_chars(at, end, value);
      RETORT_CHECK_AS(kBadInput, status == std::errc() && (next == end || *next == ','), name, ":",
                      number, ": expected rank,index,label,score,correct,...");
      at = next < end ? next + 1 : end;
    }
    RETORT_CHECK_AS(kBadInput, (field[2] >= 0 && field[2] < 1e9) || field[2] == kNoLabel, name, ":",
                    number, ": expected a label >= 0, got ", field[2]);
    const int label = field[2] == kNoLabel ? -1 : static_cast<int>(field[2]);
    rows.push_back({field[3], label, field[4] != 0});
  }
  return rows;
}

std::vector<CurriculumRow> read_curriculum(const std::filesystem::path& file) {
  std::ifstream in = open(file);
  return parse_curriculum(in, file.string());
}

}  // namespace retort::tools
