// Every error has a code, every code its cure, and the page that lists them is whole.
#include "tools/kdtrain/error_codes.h"

#include <map>
#include <regex>

#include "tests/tools/kdtrain_fixture.h"

namespace retort::tools {
namespace {

TEST(ErrorCodes, each_row_is_complete_and_each_status_has_one_for_the_rest) {
  std::set<std::string> codes;
  std::map<int, std::string> last;
  for (const ErrorRow& row : error_rows()) {
    EXPECT_TRUE(std::regex_match(row.code, std::regex("RT0[1-8][0-9][0-9]"))) << row.code;
    EXPECT_EQ(row.code[3] - '0', row.status) << row.code;
    EXPECT_TRUE(codes.insert(row.code).second) << row.code;
    EXPECT_FALSE(last.contains(row.status) && last[row.status].empty())
        << row.code << " stands behind the row that takes all";
    last[row.status] = row.text;
    EXPECT_TRUE(std::string(row.what).ends_with(".")) << row.code;
    EXPECT_GT(std::string(row.cure).size(), 10u) << row.code;
  }
  for (int status = 1; status <= 8; ++status) {
    ASSERT_TRUE(last.contains(status)) << status;
    EXPECT_EQ(last[status], "") << status;
  }
}

// A row whose text no message has any more would never be met.
TEST(ErrorCodes, each_text_is_one_of_a_message) {
  std::string sources;
  for (const char* room : {"tools", "nn", "distill", "engine", "curriculum"})
    for (const auto& entry : fs::recursive_directory_iterator(fs::path(RETORT_SOURCE_DIR) / room)) {
      const std::string name = entry.path().filename().string();
      if ((name.ends_with(".cpp") || name.ends_with(".h")) && !name.starts_with("error_codes"))
        sources += read(entry.path());
    }
  std::string joined;  // "a "\n   "b" is one text
  for (std::size_t i = 0; i < sources.size(); ++i) {
    if (sources[i] == '"') {
      const std::size_t next = sources.find_first_not_of(" \n", i + 1);
      if (next != std::string::npos && next > i + 1 && sources[next] == '"' &&
          sources.substr(i, next - i).find('\n') != std::string::npos) {
        i = next;
        continue;
      }
    }
    joined += sources[i];
  }
  for (const ErrorRow& row : error_rows())
    EXPECT_NE(joined.find(row.text), std::string::npos) << row.code << ": " << row.text;
}

TEST(ErrorCodes, the_page_lists_all) {
  EXPECT_EQ(read(fs::path(RETORT_SOURCE_DIR) / "tools/kdtrain/ERRORS.md"), errors_page());
}

TEST(ErrorCodes, the_first_row_that_fits_counts) {
  EXPECT_STREQ(error_row(ErrorCode::kUsage, "unknown key 'a': expected b").code, "RT0201");
  EXPECT_STREQ(error_row(ErrorCode::kUsage, "something").code, "RT0299");
  EXPECT_STREQ(error_row(ErrorCode::kBadInput, "unknown key").code, "RT0399");
  EXPECT_STREQ(error_row(77, "a status that there is not").code, "RT0199");
  EXPECT_EQ(error_label(ErrorCode::kMemory, "out of memory"), "error[RT0501]: ");
  EXPECT_THAT(explain_error("RT0601"), HasSubstr("--retry-failed"));
  EXPECT_EQ(explain_error("RT9999"), "");
  EXPECT_EQ(explain_error("RT060"), "");
  EXPECT_EQ(explain_error("rt0601"), explain_error("RT0601"));
}

class ErrorsOfTheProgram : public Kdtrain {};

TEST_F(ErrorsOfTheProgram, begin_with_their_code) {
  const std::string recipe = image_recipe();
  const auto meet = [&](const std::vector<std::string>& args, const std::string& code) {
    const Result r = run(args);
    EXPECT_THAT(r.err, HasSubstr("error[" + code + "]: ")) << r.status;
    EXPECT_EQ(r.status, code[3] - '0') << r.err;
  };
  meet({"run", recipe, "train.bach=1"}, "RT0201");
  meet({"run", recipe, "train.batch=0"}, "RT0218");
  meet({"rnu"}, "RT0207");
  meet({"run", "nowhere.toml"}, "RT0206");
  meet({"run", recipe, "train.batch=41"}, "RT0210");
  meet({"run", recipe, "--out", "nowhere", "--resume"}, "RT0205");
  meet({"run", recipe, "data.root=nowhere", "--out", "x"}, "RT0402");
  meet({"run", recipe, "data.train_files=nowhere.bin", "--out", "x"}, "RT0403");
  meet({"run", recipe, "teacher.weights=nowhere", "--out", "x"}, "RT0404");
  meet({"compare", ".", "data"}, "RT0406");
  meet({"run", recipe, "arms=unguided", "seeds=1", "train.lr=1000", "train.epochs=30", "--device",
        "cpu", "--out", "x"},
       "RT0601");
  expect({"explain", "RT0601"}, 0, "exit status 6");
  expect({"explain", "RT0600"}, 2, "lists all");
}

}  // namespace
}  // namespace retort::tools
