// [[model]]: teacher -> assistants -> student, one run that goes on after a signal.
#include "tests/tools/table_fixture.h"

namespace retort::tools {
namespace {

class KdtrainChains : public KdtrainTable {
 protected:
  std::string chain(const std::string& more = "") const {
    return recipe(R"(
[[model]]
name = "low"
teachers = ["mid"]
student.hidden = [9]
[[model]]
name = "mid"
student.hidden = [12]
)" + arm("direct") +
                  arm("via_mid", "teachers = [\"mid\"]") + arm("via_both", "teachers = [\"low\"]") +
                  more);
  }
};

TEST_F(KdtrainChains, a_student_learns_from_its_assistant) {
  // Students that only take over weights say whose they are.
  const std::string still = "train.lr = 0.0\n";
  const std::string file =
      chain(arm("as_mid", still + "teachers = [\"mid\"]\nstudent.hidden = [12]\n"
                                  "student.init = \"mid\"") +
            arm("as_low", still + "teachers = [\"low\"]\nstudent.hidden = [9]\n"
                                  "student.init = \"low\""));
  run_into("x", {file});
  EXPECT_EQ(values(weights("x", "as_mid")), values(weights("x", "mid")));
  EXPECT_EQ(values(weights("x", "as_low")), values(weights("x", "low")));
  // Compared with the assistant, not with the teacher: with itself nothing is left.
  EXPECT_NEAR(logged("x", "as_mid", "mean_kl", "test").back(), 0, 1e-6);
  EXPECT_GT(logged("x", "direct", "mean_kl", "test").back(), 1e-4);
  EXPECT_GT(logged("x", "mid", "loss_kd").at(0), 0);
  // Another assistant makes another student, and nothing else of the run.
  run_into("y", {file, "model.low.distill.lambda=0.9"});
  EXPECT_EQ(values(weights("y", "mid")), values(weights("x", "mid")));
  EXPECT_EQ(values(weights("y", "via_mid")), values(weights("x", "via_mid")));
  EXPECT_NE(values(weights("y", "via_both")), values(weights("x", "via_both")));
  expect({"run", file, "model.low.distill.lambda=0.8", "--device", "cpu", "--out", "y", "--resume"},
         2, "model.low.distill.lambda was 0.9, is 0.8");
}

TEST_F(KdtrainChains, goes_on_as_a_whole_after_a_signal) {
  const std::vector<std::string> args{"run",
                                      chain(),
                                      "teacher.seeds=[1,2]",
                                      "train.steps=60",
                                      "train.checkpoint_steps=7",
                                      "teacher.train.steps=60"};
  const auto into = [&](const std::string& out, bool resume = false) {
    std::vector<std::string> all = args;
    all.insert(all.end(), {"--device", "cpu"});
    if (resume) all.push_back("--resume");
    all.insert(all.end(), {"--out", out});
    return all;
  };
  const Result whole = run(into("x"));
  ASSERT_EQ(whole.status, 0) << whole.err;
  const std::size_t log = lines(folder_ / "x" / "metrics.jsonl");
  // While teachers train, while an assistant does, and among the students.
  for (const std::size_t after : {log / 12, 3 * log / 10, 3 * log / 5}) {
    const Result stopped = interrupted(into("y"), after, SIGTERM);
    EXPECT_EQ(stopped.status, 143) << stopped.err;
    const Result resumed = run(into("y", true));
    EXPECT_EQ(resumed.status, 0) << resumed.err;
    EXPECT_EQ(content(folder_ / "y"), content(folder_ / "x")) << after << " of " << log;
  }
}

TEST_F(KdtrainChains, takd_recipe_walks_every_path) {
  const char* const data = std::getenv("RETORT_DATA");
  if (data == nullptr || !fs::exists(fs::path(data) / "cifar10"))
    GTEST_SKIP() << "RETORT_DATA has no cifar10";
  expect({"validate", "takd_cifar10", "size=paper", "--no-data"}, 0, "a8_6_4 <- a8_6");
  run_into("x", {"takd_cifar10", "seeds=[1]", "data.train_limit=64", "data.test_limit=50",
                 "teacher.train.epochs=1", "train.epochs=1", "teacher.train.batch=32",
                 "train.batch=32", "teacher.allow_untrained=true", "train.log_steps=1"});
  for (const char* name : {"a8", "a6", "a4", "a8_6", "a8_4", "a6_4", "a8_6_4", "via_8_6_4"})
    EXPECT_EQ(logged("x", name, "loss_kd").size(), 2u) << name;
  EXPECT_EQ(logged("x", "unguided", "loss").size(), 2u);
  EXPECT_THAT(run({"report", "x"}).out, HasSubstr("teacher -> a8 -> a8_6 -> a8_6_4 -> via_8_6_4"));
}

}  // namespace
}  // namespace retort::tools
