// The best path of each length, on numbers made up.
#include "tests/tools/table_fixture.h"

namespace retort::tools {
namespace {

class KdtrainPaths : public KdtrainTable {
 protected:
  // The final line of a job with this accuracy.
  static std::string job(const std::string& name, double accuracy, int seed = 1) {
    std::ostringstream line;
    line << R"({"arm":")" << name << R"(","seed":)" << seed
         << R"(,"step":4,"split":"final","test.accuracy":)" << accuracy
         << R"(,"parameters":9,"wall_s":1})"
         << "\n";
    return line.str();
  }
};

TEST_F(KdtrainPaths, best_of_each_length_ends_in_the_table) {
  fs::create_directories(folder_ / "x");
  write("x/recipe.resolved.toml", R"(
data = { format = "cifar10" }
teacher.arch = "plain10"
teacher.train.epochs = 1
student.arch = "plain2"
train.epochs = 1
[[model]]
name = "a8"
student.arch = "plain8"
[[model]]
name = "a4"
student.arch = "plain4"
[[model]]
name = "a8_4"
student.arch = "plain4"
teachers = ["a8"]
)" + arm("alone", "distill.lambda = 0.0") +
                                      arm("kd") + arm("via_8", "teachers = [\"a8\"]") +
                                      arm("via_4", "teachers = [\"a4\"]") +
                                      arm("via_8_4", "teachers = [\"a8_4\"]") + arm("missing"));
  // "via_4" is better than "via_8" by its mean, not by its best seed.
  write("x/metrics.jsonl",
        job("teacher", 0.9) + job("a8", 0.8) + job("a4", 0.6) + job("a8_4", 0.7) +
            job("alone", 0.99) + job("kd", 0.5) + job("via_8", 0.60, 1) + job("via_8", 0.40, 2) +
            job("via_4", 0.55, 1) + job("via_4", 0.55, 2) + job("via_8_4", 0.58));
  const Result r = run({"report", "x"});
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr("best path by net and number of assistants (test.accuracy)\n"
                               "  plain8     0    80.00 %  teacher -> a8\n"
                               "  plain4     0    60.00 %  teacher -> a4\n"
                               "  plain4     1    70.00 %  teacher -> a8 -> a8_4\n"
                               "  plain2     0    50.00 %  teacher -> kd\n"
                               "  plain2     1    55.00 %  teacher -> a4 -> via_4\n"
                               "  plain2     2    58.00 %  teacher -> a8 -> a8_4 -> via_8_4\n"));
  EXPECT_THAT(r.out, Not(HasSubstr("-> alone")));
}

// Nets of one architecture are one net only where their options are equal.
TEST_F(KdtrainPaths, nets_of_other_widths_are_other_nets) {
  fs::create_directories(folder_ / "x");
  write("x/recipe.resolved.toml", R"(
data = { format = "parity" }
teacher.arch = "mlp"
teacher.train.steps = 1
student = { arch = "mlp", hidden = [4] }
train.steps = 1
[[model]]
name = "wide"
student.hidden = [32]
)" + arm("kd") + arm("via", "teachers = [\"wide\"]"));
  write("x/metrics.jsonl",
        job("teacher", 0.9) + job("wide", 0.8) + job("kd", 0.5) + job("via", 0.6));
  const Result r = run({"report", "x"});
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr("  mlp hidden = [32] 0    80.00 %  teacher -> wide\n"
                               "  mlp hidden = [4]  0    50.00 %  teacher -> kd\n"
                               "  mlp hidden = [4]  1    60.00 %  teacher -> wide -> via\n"));
}

}  // namespace
}  // namespace retort::tools
