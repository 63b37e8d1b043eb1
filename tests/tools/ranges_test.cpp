// The ranges of the schema are the ranges that work: every key that an arm may set, at both ends.
#include "tests/tools/kdtrain_fixture.h"
#include "tools/kdtrain/recipe.h"

namespace retort::tools {
namespace {

class Ranges : public Kdtrain {
 protected:
  // Six steps of a tiny network; whatever the arms add.
  static std::string recipe_of(const std::string& distill, const std::string& arms) {
    return R"(
name = "ranges"
data = { format = "parity", bits = 8, support = 2, test_size = 32 }
[teacher]
arch = "mlp"
hidden = [8]
allow_untrained = true
train = { steps = 4, batch = 4 }
[student]
arch = "mlp"
hidden = [4]
[train]
steps = 6
batch = 4
[distill]
)" + distill +
           arms;
  }

  // At this end a key asks for hours, or for more memory than a test may take.
  static bool is_too_much(const KeySpec& spec, bool most) {
    const bool length = spec.key == "train.steps" || spec.key == "train.epochs";
    return most && (length || ((spec.effects & nn::kChangesCost) != 0 && spec.most > 70000));
  }

  static std::string value_of(const KeySpec& spec, bool most) {
    const double end = most ? spec.most : spec.least;
    std::string text = to_toml(spec.type == Type::kInt || spec.type == Type::kInts
                                   ? Value(static_cast<std::int64_t>(end))
                                   : Value(end));
    return spec.type == Type::kInts || spec.type == Type::kFloats ? "[" + text + "]" : text;
  }

  void run_all(const std::string& distill) {
    std::string arms = "[[arm]]\nname = \"plain\"\n";
    int count = 0;
    for (const KeySpec& spec : schema()) {
      const bool numbers = spec.type == Type::kInt || spec.type == Type::kFloat ||
                           spec.type == Type::kInts || spec.type == Type::kFloats;
      if (!numbers || !spec.in_arm || spec.key.starts_with("student.")) continue;
      for (const bool most : {false, true}) {
        if (is_too_much(spec, most)) continue;
        const std::string arm = "[[arm]]\nname = \"" + spec.key + (most ? ".most" : ".least") +
                                "\"\n" + spec.key + " = " + value_of(spec, most) + "\n";
        // What other keys forbid is told before anything runs; the end itself is never refused.
        const RecipeResult alone = parse_recipe("r.toml", recipe_of(distill, arm), {});
        for (const RecipeProblem& problem : alone.problems)
          EXPECT_EQ(problem.message.find("expected " + expectation(spec)), std::string::npos)
              << spec.key << ": " << problem.message;
        if (!alone.problems.empty()) continue;
        arms += arm;
        ++count;
      }
    }
    EXPECT_GE(count, 40);
    const std::string file = write("ranges.toml", recipe_of(distill, arms));
    const Result r = run({"run", file, "--device", "cpu", "--threads", "2", "--out", "x"});
    // A rate of 1000 diverges, and says so; nothing else may go wrong.
    EXPECT_TRUE(r.status == 0 || r.status == 6) << r.err;
    const Json results = Json::parse(read(folder_ / "x/results.json"), "results.json");
    EXPECT_EQ(results.at("arms").items().size(), static_cast<std::size_t>(count) + 1);
    for (const Json& arm : results.at("arms").items())
      for (const Json& failure : arm.at("failed").items()) {
        const std::string& name = arm.at("name").as_string();
        EXPECT_THAT(failure.at("reason").as_string(),
                    ::testing::AnyOf(HasSubstr("the loss is "), HasSubstr("the model is broken")));
        EXPECT_TRUE(
            name.find("lr") != std::string::npos || name.find("decay") != std::string::npos ||
            name.find("weight") != std::string::npos || name.find("lambda") != std::string::npos ||
            name.find("temperature") != std::string::npos)
            << name << ": " << failure.at("reason").as_string();
      }
  }
};

TEST_F(Ranges, of_training_and_distillation) { run_all(""); }

TEST_F(Ranges, of_extraction) { run_all("method = \"extraction\"\nextraction.steps = 2\n"); }

}  // namespace
}  // namespace retort::tools
