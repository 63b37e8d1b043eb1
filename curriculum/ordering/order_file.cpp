#include "curriculum/ordering/order_file.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>

#include "curriculum/index.h"
#include "engine/io/file.h"
#include "kernels/common/check.h"

namespace retort::curriculum {
namespace {

constexpr std::string_view kRankedHeader = "rank,index,label,score,correct,group";
constexpr std::string_view kScoresHeader = "index,score";

template <class T>
constexpr T kMost = std::numeric_limits<T>::max();  // infinity is more

struct Row {
  std::int64_t index = 0, group = 0;
  std::optional<std::int32_t> label, correct;
  float score = 0;
};

// The lines of a text, and where a message about one of them points to.
class Lines {
 public:
  Lines(std::string_view text, const std::string& name) : text_(text), name_(name) {}

  bool next(std::string_view* line) {
    if (text_.empty()) return false;
    ++number_;
    const std::size_t end = text_.find('\n');
    *line = text_.substr(0, end);
    text_.remove_prefix(end == std::string_view::npos ? text_.size() : end + 1);
    if (line->ends_with('\r')) line->remove_suffix(1);
    return true;
  }

  template <class... Parts>
  [[noreturn]] void expected(const Parts&... parts) const {
    expected_at(number_, parts...);
  }
  template <class... Parts>
  [[noreturn]] void expected_at(std::size_t number, const Parts&... parts) const {
    fail(ErrorCode::kBadInput, name_, ":", number, ": expected ", parts...);
  }

 private:
  std::string_view text_;
  const std::string& name_;
  std::size_t number_ = 0;
};

// Splits off one field after the other and reads it whole.
class Fields {
 public:
  Fields(const Lines& lines, std::string_view line, std::string_view header)
      : lines_(lines), rest_(line) {
    const auto commas = [](std::string_view s) { return std::count(s.begin(), s.end(), ','); };
    if (commas(line) != commas(header)) lines.expected(header, ", got '", escaped(line), "'");
  }

  template <class T>
  T number(const char* what, T least) {
    const std::string_view field = text();
    T value{};
    const char* const past = field.data() + field.size();
    const auto [end, status] = std::from_chars(field.data(), past, value);
    if (status != std::errc() || end != past || !(value >= least && value <= kMost<T>))
      lines_.expected(what, ", got '", escaped(field), "'");
    return value;
  }
  template <class T>
  std::optional<T> number_or_nothing(const char* what, T least) {
    if (!rest_.empty() && rest_.front() != ',') return number<T>(what, least);
    text();
    return std::nullopt;
  }

 private:
  std::string_view text() {
    const std::string_view field = rest_.substr(0, rest_.find(','));
    rest_.remove_prefix(std::min(rest_.size(), field.size() + 1));
    return field;
  }

  const Lines& lines_;
  std::string_view rest_;
};

Row ranked_row(const Lines& lines, std::string_view line, const std::vector<Row>& before) {
  Fields fields(lines, line, kRankedHeader);
  Row row;
  const auto rank = fields.number<std::int64_t>("a rank", 0);
  if (at(rank) != before.size()) lines.expected("rank ", before.size(), ", got ", rank);
  row.index = fields.number<std::int64_t>("an index >= 0", 0);
  row.label = fields.number_or_nothing<std::int32_t>("a label >= 0", 0);
  row.score = fields.number("a finite score", -kMost<float>);
  row.correct = fields.number_or_nothing<std::int32_t>("correct to be 0 or 1", 0);
  if (row.correct.value_or(0) > 1) lines.expected("correct to be 0 or 1, got ", *row.correct);
  row.group = fields.number<std::int64_t>("a group >= 0", 0);
  if (before.empty()) {
    if (row.group != 0) lines.expected("group 0, got ", row.group);
    return row;
  }
  const std::int64_t last = before.back().group;
  if (row.group != last && row.group != last + 1)
    lines.expected("group ", last, " or ", last + 1, ", got ", row.group);
  if (row.label.has_value() != before.front().label.has_value())
    lines.expected("a label on every line or on none");
  if (row.correct.has_value() != before.front().correct.has_value())
    lines.expected("correct to be given on every line or on none");
  return row;
}

void check_groups(const Lines& lines, const std::vector<Row>& rows) {
  if (rows.empty() || rows.back().group == 0 || !rows.front().label) return;
  std::set<std::int32_t> labels;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    if (r > 0 && rows[r].group != rows[r - 1].group) labels.clear();
    if (!labels.insert(*rows[r].label).second)
      lines.expected_at(r + 2, "one sample of a label in group ", rows[r].group,
                        ", got a second of ", *rows[r].label);
  }
}

}  // namespace

std::string order_csv(const Order& order, std::span<const std::int32_t> labels,
                      std::span<const float> scores, std::span<const std::uint8_t> correct) {
  std::string text = join(kRankedHeader, "\n");
  for (std::size_t r = 0; r < order.indices.size(); ++r) {
    const std::size_t i = at(order.indices[r]);
    RETORT_CHECK((labels.empty() || i < labels.size()) && i < scores.size() &&
                     (correct.empty() || i < correct.size()),
                 "[order_csv] sample ", i, " has no label, score or correctness");
    RETORT_CHECK(labels.empty() || labels[i] >= 0, "[order_csv] expected labels >= 0, got ",
                 labels[i], " for sample ", i);
    char score[32];  // %.9g, whatever the locale
    const auto end = std::to_chars(score, score + sizeof score, static_cast<double>(scores[i]),
                                   std::chars_format::general, 9);
    text += join(r, ",", i, ",", labels.empty() ? "" : std::to_string(labels[i]), ",",
                 std::string_view(score, end.ptr), ",",
                 correct.empty() ? ""
                 : correct[i]    ? "1"
                                 : "0",
                 ",", order.groups[r], "\n");
  }
  return text;
}

OrderFile read_order_csv(std::string_view text, const std::string& name,
                         std::optional<std::int64_t> samples) {
  Lines lines(text, name);
  std::string_view line;
  const bool any = lines.next(&line);
  OrderFile file;
  file.ranked = line == kRankedHeader;
  if (!any || !(file.ranked || line == kScoresHeader))
    lines.expected_at(1, "the header ", kRankedHeader, " or ", kScoresHeader, ", got '",
                      escaped(line), "'");
  std::vector<Row> rows;
  while (lines.next(&line)) {
    if (file.ranked) {
      rows.push_back(ranked_row(lines, line, rows));
      continue;
    }
    Fields fields(lines, line, kScoresHeader);
    Row row;
    row.index = fields.number<std::int64_t>("an index >= 0", 0);
    row.score = fields.number("a finite score", -kMost<float>);
    rows.push_back(row);
  }
  check_groups(lines, rows);

  const std::size_t n = samples ? at(*samples) : rows.size();
  file.scores.assign(n, std::numeric_limits<float>::quiet_NaN());
  if (!rows.empty() && rows.front().label) file.labels.assign(n, -1);
  if (!rows.empty() && rows.front().correct) file.correct.assign(n, 0);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const Row& row = rows[r];
    if (at(row.index) >= n) lines.expected_at(r + 2, "an index below ", n, ", got ", row.index);
    float& score = file.scores[at(row.index)];
    if (!std::isnan(score)) lines.expected_at(r + 2, "every index once, got ", row.index, " again");
    score = row.score;
    if (!file.labels.empty()) file.labels[at(row.index)] = *row.label;
    if (!file.correct.empty())
      file.correct[at(row.index)] = static_cast<std::uint8_t>(*row.correct);
    if (!file.ranked) continue;
    file.order.indices.push_back(row.index);
    file.order.groups.push_back(row.group);
  }
  return file;
}

}  // namespace retort::curriculum
