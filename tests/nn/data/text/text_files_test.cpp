#include "nn/data/text/text_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "nn/data/text/bioasq.h"
#include "tests/support/temporary_folder.h"

namespace retort::test {
namespace {

using namespace nn;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class TextFiles : public ::testing::Test {
 protected:
  std::vector<TextSample> read(const TextFormat& format, const std::string& content) {
    spill(folder_ / "x", content);
    const auto reader = open_text(format, folder_ / "x");
    std::vector<TextSample> all;
    for (TextSample sample; reader->next(&sample);) {
      EXPECT_EQ(sample.texts.size(), format.texts_per_sample());
      all.push_back(sample);
    }
    return all;
  }
  std::string refused(const TextFormat& format, const std::string& content) {
    try {
      read(format, content);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kBadInput);
      return e.what();
    }
    return "accepted";
  }
  TemporaryFolder folder_;
};

TEST_F(TextFiles, lines_are_texts) {
  const auto all = read({.kind = "text"}, "one\n\n two words\r\n");
  ASSERT_EQ(all.size(), 2u);
  EXPECT_THAT(all[1].texts, ElementsAre(" two words"));
  EXPECT_EQ(all[1].label, -1);
}

TEST_F(TextFiles, columns_by_name_or_number) {
  TextFormat glue{.kind = "tsv", .task = TextTask::kClassification, .label = "label"};
  auto all = read(glue, "sentence\tlabel\ngood \"film\" \t1\nbad\t0\n");
  ASSERT_EQ(all.size(), 2u);
  EXPECT_THAT(all[0].texts, ElementsAre("good \"film\" "));  // quotes are text
  EXPECT_EQ(all[0].label, 1);
  // CoLA as it is published: no header, four columns.
  TextFormat cola{.kind = "tsv", .task = TextTask::kClassification, .text = "3", .label = "1"};
  cola.header = false;
  all = read(cola, "gj04\t0\t*\tthey it\ngj04\t1\t\tthey left\n");
  ASSERT_EQ(all.size(), 2u);
  EXPECT_THAT(all[0].texts, ElementsAre("they it"));
  EXPECT_EQ(all[1].label, 1);
  TextFormat pair = glue;
  pair.text = "a", pair.second = "b";
  all = read(pair, "b\tlabel\ta\nsecond\t0\tfirst\n");
  EXPECT_THAT(all[0].texts, ElementsAre("first", "second"));
}

TEST_F(TextFiles, mistakes_in_tables_are_named_by_file_line_and_byte) {
  const TextFormat glue{.kind = "tsv", .task = TextTask::kClassification, .label = "label"};
  EXPECT_THAT(
      refused(glue, "sentence\tlabel\nok\t1\nno\tx\n"),
      HasSubstr("x:3: byte 24 of the file: column 2: expected a label in [0, 65536), got 'x'"));
  EXPECT_THAT(refused(glue, "sentence\tlabel\nok\n"),
              HasSubstr("x:2: byte 16 of the file: expected 2 cells between tabs, got 1"));
  EXPECT_THAT(refused(glue, "text\tlabel\nok\t1\n"),
              HasSubstr("x:1: byte 1 of the file: expected a column 'sentence'"));
  EXPECT_THAT(refused(glue, ""), HasSubstr("expected a line with the names"));
  EXPECT_THAT(refused(glue, "sentence\tlabel\nok\t-1\n"), HasSubstr("got '-1'"));
}

TEST_F(TextFiles, fields_of_json_lines) {
  TextFormat format{.kind = "jsonl", .text = "abstract"};
  auto all = read(format, "{\"id\": 1, \"abstract\": \"a b\"}\n\n{\"abstract\": \"c\"}\n");
  ASSERT_EQ(all.size(), 2u);
  EXPECT_THAT(all[0].texts, ElementsAre("a b"));
  format = {.kind = "jsonl", .task = TextTask::kMultipleChoice, .text = "q", .label = "right"};
  format.choices = {"good", "bad"};
  all = read(format, R"({"q": "who", "good": "me", "bad": "you", "right": 0})");
  EXPECT_THAT(all[0].texts, ElementsAre("who", "me", "you"));
  EXPECT_EQ(all[0].label, 0);
  EXPECT_THAT(refused(format, "{\"q\": \"who\", \"good\": 1, \"bad\": \"\", \"right\": 0}\n"),
              HasSubstr("x:1: /good: expected a string"));
  EXPECT_THAT(refused(format, "{}\n{\n"), HasSubstr("x:1: "));
}

const char* kQuestions = R"([
{"id": "a", "question": "Is it?", "answer": "yes", "snippets": [{"text": "It is."}, {"text": "Yes."}]},
{"id": "b", "question": "Was it?", "answer": "no", "snippets": [{"text": "Never."}]}])";

TEST_F(TextFiles, questions_by_question_and_by_snippet) {
  TextFormat format{.kind = "bioasq", .task = TextTask::kClassification};
  auto all = read(format, kQuestions);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_THAT(all[0].texts, ElementsAre("Is it?", "It is. Yes."));
  EXPECT_EQ(all[0].label, 1);
  EXPECT_EQ(all[1].label, 0);
  format.by_snippet = true;
  all = read(format, kQuestions);
  ASSERT_EQ(all.size(), 3u);
  EXPECT_THAT(all[1].texts, ElementsAre("Is it?", "Yes."));
  format.task = TextTask::kMultipleChoice;
  all = read(format, kQuestions);
  EXPECT_THAT(all[2].texts, ElementsAre("Never.", "Was it? yes", "Was it? no"));
  EXPECT_EQ(all[2].label, 1);  // the second choice: no
  EXPECT_EQ(all[0].label, 0);
  EXPECT_THAT(refused(format, R"([{"question": "q", "answer": "maybe", "snippets": []}])"),
              HasSubstr("x: /0/answer: expected \"yes\" or \"no\""));
}

// 60 questions of 1 to 4 rows, every third is no.
std::vector<BioasqRow> rows() {
  std::vector<BioasqRow> all;
  for (std::int64_t q = 0; q < 60; ++q)
    for (std::int64_t s = 0; s <= q % 4; ++s)
      all.push_back({"q" + std::to_string(q), "s" + std::to_string(s), q % 3 != 0, q});
  return all;
}

TEST(BioasqSplit, undersampling_keeps_the_first_of_each_answer) {
  const auto all = part_of(rows(), {.undersample = true}, "train");
  std::int64_t yes = 0;
  for (const BioasqRow& row : all) yes += row.yes;
  EXPECT_EQ(2 * yes, static_cast<std::int64_t>(all.size()));
  EXPECT_EQ(part_of(rows(), {.undersample = true}, "test").size(), rows().size());
}

TEST(BioasqSplit, parts_share_the_undersampled_rows_and_grouped_ones_no_question) {
  for (const auto kind : {BioasqSplit::Kind::kPaper, BioasqSplit::Kind::kGrouped}) {
    const BioasqSplit split{.kind = kind, .per_class = 40};
    std::set<std::string> seen;
    std::vector<std::set<std::int64_t>> questions;
    std::vector<std::size_t> sizes;
    for (const char* part : {"train", "validation", "test"}) {
      auto& own = questions.emplace_back();
      const auto of_part = part_of(rows(), split, part);
      sizes.push_back(of_part.size());
      for (const BioasqRow& row : of_part) {
        EXPECT_TRUE(seen.insert(row.question + row.context).second) << "twice";
        own.insert(row.number);
      }
    }
    EXPECT_EQ(seen.size(), 80u);
    if (kind == BioasqSplit::Kind::kPaper) {
      EXPECT_THAT(sizes, ElementsAre(67u, 4u, 9u));  // floor(80 1500 / 1766), floor(80 100 / 1766)
      continue;
    }
    for (const auto& own : questions)
      for (const auto& other : questions)
        for (const std::int64_t q : own) EXPECT_EQ(other.contains(q), &own == &other) << q;
    EXPECT_GE(sizes[2], 7u);
    EXPECT_LT(sizes[2], 7u + 4u);
  }
}

}  // namespace
}  // namespace retort::test
