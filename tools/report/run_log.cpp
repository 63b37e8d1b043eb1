#include "tools/report/run_log.h"

#include <charconv>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "kernels/common/check.h"

namespace retort::tools {
namespace {

// A flat object only: anything nested is refused, so depth and memory are bounded by the line.
class FlatObject final : public nlohmann::json_sax<nlohmann::json> {
 public:
  LogRecord record;
  std::string error;

  bool null() override { return true; }
  bool boolean(bool value) override { return number(value ? 1 : 0); }
  bool number_integer(number_integer_t value) override {
    return number(static_cast<double>(value));
  }
  bool number_unsigned(number_unsigned_t value) override {
    return number(static_cast<double>(value));
  }
  bool number_float(number_float_t value, const string_t&) override { return number(value); }
  bool string(string_t& value) override {
    if (!inside_) return refuse("expected an object");
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    const bool name =
        key_ == "arm" || key_ == "split" || key_ == "stage" || key_ == "text" || key_ == "task";
    if (!name && value == "nan") return number(std::numeric_limits<double>::quiet_NaN());
    if (!name && value == "inf") return number(kInfinity);
    if (!name && value == "-inf") return number(-kInfinity);
    record.texts[key_] = value;
    return true;
  }
  bool binary(binary_t&) override { return refuse("unexpected binary value"); }
  bool start_object(std::size_t) override {
    if (inside_) return refuse("expected a flat object, got a nested one");
    inside_ = true;
    return true;
  }
  bool key(string_t& key) override {
    if (!keys_.insert(key).second)
      return refuse(join("the key '", key.substr(0, 80), "' is there twice"));
    key_ = key;
    return true;
  }
  bool end_object() override { return true; }
  bool start_array(std::size_t) override { return refuse("expected a flat object, got an array"); }
  bool end_array() override { return true; }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return refuse(join("not JSON at byte ", position));
  }

 private:
  bool number(double value) {
    if (!inside_) return refuse("expected an object");
    record.numbers[key_] = value;
    return true;
  }
  bool refuse(const std::string& why) {
    error = why;
    return false;
  }
  bool inside_ = false;
  std::string key_;
  std::set<std::string> keys_;
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
    if (nlohmann::json::sax_parse(line, &handler)) {
      records.push_back(std::move(handler.record));
      tell_task(&records.back());
    } else {
      pending_error = join(name, ":", number, ": ", handler.error);  // forgiven on the last line
    }
  }
  return records;
}

std::vector<LogRecord> read_run_log(const std::filesystem::path& file) {
  std::ifstream in = open(file);
  return parse_run_log(in, file.string());
}

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
      // Who scored by a file or without labels was neither right nor wrong.
      if (&value == &field[4] && at != end && *at == ',') {
        value = 1;
        continue;
      }
      const auto [next, status] = std::from_chars(at, end, value);
      RETORT_CHECK_AS(kBadInput, status == std::errc() && (next == end || *next == ','), name, ":",
                      number, ": expected rank,index,label,score,correct,...");
      at = next < end ? next + 1 : end;
    }
    RETORT_CHECK_AS(kBadInput, field[2] >= 0 && field[2] < 1e9, name, ":", number,
                    ": expected a label >= 0, got ", field[2]);
    rows.push_back({field[3], static_cast<int>(field[2]), field[4] != 0});
  }
  return rows;
}

std::vector<CurriculumRow> read_curriculum(const std::filesystem::path& file) {
  std::ifstream in = open(file);
  return parse_curriculum(in, file.string());
}

}  // namespace retort::tools
