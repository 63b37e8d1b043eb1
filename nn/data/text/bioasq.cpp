#include "nn/data/text/bioasq.h"

#include <algorithm>
#include <array>
#include <map>

#include "engine/io/json_view.h"
#include "kernels/common/check.h"
#include "nn/data/packed_file.h"
#include "nn/data/permutation.h"

namespace retort::nn {
namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 30;
// Rows of the paper's parts: train, validation, test.
constexpr std::int64_t kPaperParts[] = {1500, 100, 166}, kPaperRows = 1766;
constexpr std::array<const char*, 3> kParts = {"train", "validation", "test"};

// The first `most` rows of each answer, in the order of the file.
std::vector<BioasqRow> first_of_each(const std::vector<BioasqRow>& rows, std::int64_t most) {
  std::int64_t count[2] = {0, 0};
  for (const BioasqRow& row : rows) ++count[row.yes];
  RETORT_CHECK_AS(kBadInput, count[0] > 0 && count[1] > 0,
                  "[bioasq] expected rows of both answers, got ", count[1], " yes and ", count[0],
                  " no");
  most = std::min({most, count[0], count[1]});
  std::vector<BioasqRow> kept;
  std::int64_t taken[2] = {0, 0};
  for (const BioasqRow& row : rows)
    if (taken[row.yes]++ < most) kept.push_back(row);
  return kept;
}

std::vector<std::int64_t> shuffled(std::int64_t n, std::uint64_t seed) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < order.size(); ++i)
    order[i] = static_cast<std::int64_t>(
        permute(i, static_cast<std::uint64_t>(n), seed, 0, path_hash("bioasq")));
  return order;
}

std::vector<BioasqRow> paper_part(const std::vector<BioasqRow>& rows, std::uint64_t seed,
                                  std::size_t part) {
  const auto n = static_cast<std::int64_t>(rows.size());
  const std::int64_t train = n * kPaperParts[0] / kPaperRows,
                     validation = n * kPaperParts[1] / kPaperRows;
  const std::int64_t ends[] = {0, train, train + validation, n};
  const std::vector<std::int64_t> order = shuffled(n, seed);
  std::vector<BioasqRow> own;
  for (std::int64_t i = ends[part]; i < ends[part + 1]; ++i)
    own.push_back(rows[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])]);
  return own;
}

std::vector<BioasqRow> grouped_part(const std::vector<BioasqRow>& rows, std::uint64_t seed,
                                    std::size_t part) {
  std::map<std::int64_t, std::vector<BioasqRow>> questions;
  for (const BioasqRow& row : rows) questions[row.number].push_back(row);
  std::vector<const std::vector<BioasqRow>*> list;
  for (const auto& [number, of_question] : questions) list.push_back(&of_question);
  const auto n = static_cast<std::int64_t>(rows.size());
  const std::vector<std::int64_t> order = shuffled(static_cast<std::int64_t>(list.size()), seed);
  std::vector<BioasqRow> parts[3];
  std::size_t at = 0;
  for (const std::size_t p : {std::size_t{2}, std::size_t{1}, std::size_t{0}})
    for (; at < order.size(); ++at) {
      const auto filled = static_cast<std::int64_t>(parts[p].size());
      if (p != 0 && filled >= n * kPaperParts[p] / kPaperRows) break;
      const auto& of_question = *list[static_cast<std::size_t>(order[at])];
      parts[p].insert(parts[p].end(), of_question.begin(), of_question.end());
    }
  return parts[part];
}

class Rows : public TextReader {
 public:
  Rows(const TextFormat& format, std::vector<BioasqRow> rows)
      : choice_(format.task == TextTask::kMultipleChoice),
        labelled_(format.labelled()),
        rows_(std::move(rows)) {}
  bool next(TextSample* sample) override {
    if (at_ == rows_.size()) return false;
    const BioasqRow& row = rows_[at_++];
    if (choice_)
      sample->texts = {row.context, row.question + " yes", row.question + " no"};
    else
      sample->texts = {row.question, row.context};
    sample->label = !labelled_ ? -1 : static_cast<std::int32_t>(choice_ ? !row.yes : row.yes);
    return true;
  }

 private:
  bool choice_, labelled_;
  std::vector<BioasqRow> rows_;
  std::size_t at_ = 0;
};

}  // namespace

std::vector<BioasqRow> read_bioasq(const std::string& path, bool by_snippet) {
  const Json json = Json::parse(read_packed(path, kMostBytes), path);
  const JsonView root(json, path);
  const JsonView list = json.kind() == Json::Kind::kObject ? root.at("questions") : root;
  std::vector<BioasqRow> rows;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const JsonView one = list.item(i);
    BioasqRow row;
    row.number = static_cast<std::int64_t>(i);
    row.question = one.at("question").string();
    const JsonView answer = one.at("answer");
    row.yes = answer.string() == "yes";
    if (!row.yes && answer.string() != "no") answer.expected("\"yes\" or \"no\"");
    const JsonView snippets = one.at("snippets");
    std::string joined;
    for (std::size_t s = 0; s < snippets.size(); ++s) {
      const std::string& text = snippets.item(s).at("text").string();
      if (by_snippet) {
        row.context = text;
        rows.push_back(row);
      }
      joined += (s == 0 ? "" : " ") + text;
    }
    if (by_snippet) continue;
    row.context = std::move(joined);
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<BioasqRow> part_of(std::vector<BioasqRow> rows, const BioasqSplit& split,
                               const std::string& part) {
  const auto p =
      static_cast<std::size_t>(std::find(kParts.begin(), kParts.end(), part) - kParts.begin());
  RETORT_CHECK(p < kParts.size(), "[bioasq] expected train, validation or test, got ", part);
  if (split.kind == BioasqSplit::Kind::kOfficial) {
    if (!split.undersample || p != 0) return rows;
    return first_of_each(rows, static_cast<std::int64_t>(rows.size()));
  }
  const std::vector<BioasqRow> kept = first_of_each(rows, split.per_class);
  return split.kind == BioasqSplit::Kind::kPaper ? paper_part(kept, split.seed, p)
                                                 : grouped_part(kept, split.seed, p);
}

std::unique_ptr<TextReader> samples_of(const TextFormat& format, std::vector<BioasqRow> rows) {
  return std::make_unique<Rows>(format, std::move(rows));
}

std::unique_ptr<TextReader> open_bioasq(const TextFormat& format, const std::string& path) {
  return samples_of(format, read_bioasq(path, format.by_snippet));
}

}  // namespace retort::nn
