// The embedded recipes for language on a slice of the real data, whole: does each of their arms run?
#include "tests/tools/table_fixture.h"

namespace retort::tools {
namespace {

class KdtrainTextRecipes : public KdtrainTable {
 protected:
  void SetUp() override {
    KdtrainTable::SetUp();
    if (std::getenv("RETORT_DATA") == nullptr)
      GTEST_SKIP() << "RETORT_DATA is not set: no real data to read";
  }
  double final_number(const std::string& arm, const char* key) const {
    const auto lines = lines_of("x", arm, "final");
    EXPECT_FALSE(lines.empty()) << arm;
    return lines.empty() ? NAN : lines.back().at(key).as_number();
  }
};

TEST_F(KdtrainTextRecipes, sst2_distill) {
  run_into("x", {"sst2_distill", "size=smoke", "data.cache=cache"});
  for (const char* arm : {"half_alone", "half_kd", "alone", "kd", "kd_cl", "kd_cl_sr"}) {
    const double accuracy = final_number(arm, "test.accuracy");
    EXPECT_TRUE(accuracy >= 0 && accuracy <= 1) << arm;
  }
  EXPECT_TRUE(fs::exists(folder_ / "x/arms/teacher/seed1/tokenizer.json"));
}

TEST_F(KdtrainTextRecipes, pubmed_mlm) {
  run_into("x", {"pubmed_mlm", "size=smoke", "data.cache=cache", "task.finetune.data.per_class=24",
                 "task.finetune.train.epochs=1", "task.finetune.teacher.train.epochs=1"});
  for (const char* arm :
       {"alone", "kd", "kd_cl", "kd_cl_sr", "kd_cl_reverse", "kd_late", "kd_both"}) {
    const double accuracy = final_number(arm, "test.accuracy");
    EXPECT_TRUE(accuracy >= 0 && accuracy <= 1) << arm;
  }
  // Who learns from the teacher in which task; there it answers for classes, no longer for words.
  const auto taught_in = [&](const std::string& arm, const char* task) {
    for (const Json& line : lines_of("x", arm))
      if (line.at("task").as_string() == task && line.find("loss_kd") != nullptr) return true;
    return false;
  };
  EXPECT_TRUE(taught_in("kd", "pretrain") && !taught_in("kd", "finetune"));
  EXPECT_TRUE(!taught_in("kd_late", "pretrain") && taught_in("kd_late", "finetune"));
  EXPECT_TRUE(taught_in("kd_both", "pretrain") && taught_in("kd_both", "finetune"));
}

TEST_F(KdtrainTextRecipes, paper_sizes_are_valid) {
  expect({"validate", "sst2_distill"}, 0, "6 arms");
  expect({"validate", "pubmed_mlm"}, 0, "7 arms");
  expect({"validate", "pubmed_mlm", "size=paper", "--no-data"}, 0, "7 arms");
}

}  // namespace
}  // namespace retort::tools
