// What keys get wrong together, with models and data, and how it is told.
#include <gtest/gtest.h>

#include "tests/tools/recipe_fixture.h"

namespace retort::tools {
namespace {

TEST(RecipeChecks, names_of_models_and_teachers_are_checked_with_their_place) {
  const auto refuses = [](const std::string& extra, const std::string& text) {
    const RecipeResult r = parse(kSmall + extra);
    EXPECT_TRUE(mentions(r, text)) << extra << "\n" << format_problems(r, kSmall + extra);
    for (const RecipeProblem& p : r.problems) EXPECT_GT(p.place.line, 2) << p.message;
  };
  const std::string a = "[[model]]\nname = \"a\"\n", b = "[[model]]\nname = \"b\"\n";
  refuses(a + "teachers = [\"b\"]\n" + b + "teachers = [\"a\"]\n", "learns from itself");
  refuses(a + "teachers = [\"b\"]\n" + b + "teachers = [\"a\"]\n", "a <- b <- a");
  refuses(a + "teachers = [\"a\"]\n", "model 'a' learns from itself");
  refuses(a + "teachers = [\"c\"]\n", "there is no model 'c' to learn from");
  refuses(a + "teachers = [\"teacher\", \"teacher\"]\n", "'teacher' is there twice");
  refuses(a + "teachers = []\n", "expected a list of at least one");
  refuses(a + a, "model 'a' is there twice");
  refuses("[[model]]\narch = \"resnet8\"\n", "[[model]] number 1 needs a name");
  refuses("[[task]]\nname = \"t\"\n[[task]]\nname = \"t\"\n", "task 't' is there twice");
  refuses("[[task]]\nname = \"t\"\nseeds = [3]\n", "cannot differ between tasks");
  refuses("[[task]]\nname = \"t\"\nteachers = [\"a\"]\n", "unknown key 'teachers'");
  refuses(a + "[[arm]]\nname = \"a\"\n", "a model is named 'a' too");
  refuses("[[arm]]\nname = \"teacher\"\n", "no arm may be named 'teacher'");
  refuses("[[model]]\nname = \"teacher\"\n", "no model may be named 'teacher'");
  refuses("[[arm]]\nname = \"x\"\nteachers = [\"y\"]\n", "there is no model 'y'");
  refuses("[model.a]\narch = \"resnet8\"\n", "[[model]] with two brackets");
  EXPECT_TRUE(mentions(parse(kSmall, {"model.x.arch=mlp"}), "no such model"));
  EXPECT_TRUE(mentions(parse(kSmall, {"report.baseline=x"}), "there is no arm 'x'"));
}

TEST(RecipeChecks, models_and_data_must_fit) {
  const auto problems = [](const std::string& extra) { return parse(kSmall + extra); };
  const auto refuses = [&](const std::string& extra, const std::string& text) {
    const RecipeResult r = problems(extra);
    EXPECT_EQ(r.problems.size(), 1u) << extra << "\n" << format_problems(r, kSmall + extra);
    EXPECT_TRUE(mentions(r, text)) << extra << "\n" << format_problems(r, kSmall + extra);
  };
  const auto accepts = [&](const std::string& extra) {
    const RecipeResult r = problems(extra);
    EXPECT_TRUE(r.problems.empty()) << extra << "\n" << format_problems(r, kSmall + extra);
  };
  const std::string alone = "distill.lambda = 0.0\n";
  const std::string text = alone + "data.format = \"letters\"\nstudent.arch = \"reader\"\n";
  accepts(text);
  refuses(alone + "student.arch = \"reader\"\n",
          "arch reader reads tokens, data cifar10 gives images");
  refuses(alone + "student.arch = \"mlp\"\n", "arch mlp reads features, data cifar10 gives images");
  refuses("teacher.arch = \"mlp\"\n", "teacher.arch: arch mlp reads features");
  accepts(alone + "teacher.arch = \"mlp\"\n");  // nobody learns from it
  // Keys that nobody reads, at values that ask for something.
  refuses(alone + "student.hidden = [5]\n", "student.hidden: arch resnet8 does not read it");
  accepts(alone + "student.hidden = [32]\n");
  refuses(text + "data.bits = 7\n", "data letters does not read it");
  accepts(text + "data.augment = \"none\"\nstudent.normalize = \"none\"\n");
  refuses(text + "data.augment = \"crop_flip\"\n", "data.augment: data letters does not read it");
  refuses(text + "student.normalize = \"cifar\"\n",
          "student.normalize: data letters does not read it");
  refuses(text + "student.normalize = \"imagenet\"\n",
          "student.normalize: data letters does not read it");
  refuses("teacher.hidden = [9]\n", "teacher.hidden: arch resnet20 does not read it");
  // One arm that reads it is enough; an arm's own key is its own matter.
  const std::string arms =
      "[[arm]]\nname = \"a\"\n[[arm]]\nname = \"b\"\nstudent.arch = \"resnet18\"\n";
  accepts("student.widths = [8, 8, 16, 32]\n" + arms);
  refuses(arms + "student.widths = [8, 8, 16, 32]\n", "arm 'b': student.widths: arch resnet18");
  // Values against the row that reads them.
  refuses(alone + "student.shortcut = \"C\"\n",
          "expected one of auto, A, B for resnet8, found \"C\"");
  refuses(text + "student.reader_heads = 3\n", "student.reader_heads: expected an even number");
  refuses(alone + "student.widths = [1, 2]\n", "student.widths: expected 4");
  const std::string parity =
      "data.format = \"parity\"\nteacher.arch = \"mlp\"\nstudent.arch = \"mlp\"\n";
  accepts(parity);
  refuses(parity + "data.bits = 4\n", "data.support: expected at most bits = 4");
  refuses(parity + "train.order = \"curriculum\"\n", "there is nothing to order");
  refuses(parity + "data.train_sample = 5\n", "no part of it to draw");
  const RecipeResult r = problems(
      "data.format = \"letters\"\nstudent.arch = \"reader\"\n"
      "teacher.arch = \"reader\"\ndistill.method = \"extraction\"\n");
  EXPECT_TRUE(mentions(r, "student.arch = reader has none")) << format_problems(r, "");
  EXPECT_TRUE(mentions(r, "teacher.arch = reader has none"));
}

TEST(RecipeChecks, what_would_mean_something_else_is_refused) {
  const auto told = [](const std::string& more, const std::string& message) {
    return mentions(parse_recipe("r.toml", std::string(kSmall) + more, {}), message);
  };
  EXPECT_TRUE(told("teacher.train.order = \"curriculum\"\n", "made by a trained teacher"));
  EXPECT_TRUE(
      told("data.format = \"parity\"\nteacher.arch = \"mlp\"\nstudent.arch = \"mlp\"\n"
           "student.hidden = []\n",
           "expected a list of at least one"));
  EXPECT_TRUE(told("seeds = []\n", "expected a list of at least one"));
  EXPECT_TRUE(told("seeds = [1, -2, 3]\n", "found -2 in place 2 of a list of 3"));
  EXPECT_TRUE(told("seeds = [1, \"a\"]\n", "found string \"a\" in place 2 of a list of 2"));
  EXPECT_TRUE(told("teacher.seeds = [1, 1]\n", "teacher.seeds: seed 1 is there twice"));
  EXPECT_TRUE(told("teacher.train.gamma = 0\n", "teacher.train.gamma: expected a number in"));
  EXPECT_TRUE(told("arms = [\"student\", \"student\"]\n", "\"student\" is there twice"));
  EXPECT_TRUE(told("student.init = \"x\"\n", "learns from no 'x'"));
  EXPECT_TRUE(told("student.init_layers = [\"a=b\"]\n", "needs student.init"));
  EXPECT_TRUE(told("student.init = \"teacher\"\nstudent.init_layers = [\"a\"]\n",
                   "expected \"student_prefix=teacher_prefix\""));
  EXPECT_TRUE(told("student.init = \"teacher\"\nstudent.weights = \"w\"\n", "one of them"));
  EXPECT_TRUE(told("distill.hidden_mse.weight = 1\ndistill.hidden_mse.layers = [2, 9]\n",
                   "distill.hidden_mse.layers: layer 9 of a student with "));
  EXPECT_FALSE(told("distill.hidden_mse.layers = [9]\n", "hidden layers"));  // it is off
  EXPECT_TRUE(told("distill.parameter = 0.5\n", "forward_kl has none"));
  EXPECT_TRUE(told("distill.divergence = \"jensen_shannon\"\ndistill.parameter = 0\n",
                   "expected a number in (0, 1) for jensen_shannon"));
  EXPECT_FALSE(told("distill.divergence = \"skew_kl\"\ndistill.parameter = 0\n", ""));
  EXPECT_TRUE(told("train.order = \"curriculum\"\ncurriculum.scorer = \"file\"\n",
                   "curriculum.file: expected a curriculum file"));
  EXPECT_TRUE(told("curriculum.file = \"x\"\n", "curriculum.scorer = \"file\" only"));
  EXPECT_TRUE(told("teacher.weights = \"w.safetensors\"\nteacher.seeds = [1, 2]\n", "one seed"));
  EXPECT_TRUE(told("[arm.\"#x\"]\ntrain.lr = 1\n", "[[arm]] with two brackets"));
  EXPECT_TRUE(told("[arm.\"#4000000000\"]\ntrain.lr = 1\n", "[[arm]] with two brackets"));
}

TEST(RecipeChecks, all_mistakes_at_once_with_places_and_suggestions) {
  const std::string text =
      "[distill]\ntemprature = 4.0\nlambda = \"fast\"\n[train]\noptimizer = \"adam\"\nepochs = 3\n"
      "[trian]\nlr = 1\n[student]\nlr = 2\n";
  const RecipeResult r = parse(text, {"train.batch=0", "nonsense"});
  EXPECT_EQ(r.problems.size(), 7u) << format_problems(r, text);
  EXPECT_TRUE(mentions(r, "did you mean 'distill.temperature'?"));
  EXPECT_TRUE(mentions(r, "did you mean 'adamw'?"));
  EXPECT_TRUE(mentions(r, "did you mean 'train.lr'?"));
  EXPECT_TRUE(mentions(r, "expected an integer in [1, 65536], found 0"));
  const std::string shown = format_problems(r, text);
  EXPECT_NE(shown.find("r.toml:2:1: error[RT0201]: unknown key 'distill.temprature'"),
            std::string::npos);
  EXPECT_NE(shown.find("r.toml:3:10: error[RT0218]: distill.lambda"), std::string::npos);
  EXPECT_NE(shown.find("command line, argument 1: error[RT0218]: train.batch"), std::string::npos);
  EXPECT_NE(shown.find("7 errors; nothing was started"), std::string::npos);
}

TEST(RecipeChecks, mistakes_of_several_keys_show_the_line_that_decides) {
  const std::string text = std::string(kSmall) +
                           "[[arm]]\nname = \"a\"\n  train.nesterov = true\n"
                           "train.momentum = 0.0\n[[arm]]\nname = \"b\"\n";
  EXPECT_EQ(format_problems(parse(text), text),
            "r.toml:5:9: error[RT0299]: arm 'a': train.nesterov: needs SGD with momentum > 0\n"
            "    5 |   train.nesterov = true\n"
            "      |         ^\n"
            "1 error; nothing was started\n");
}

TEST(RecipeChecks, a_mistake_in_an_arm_is_told_once) {
  RecipeResult r = parse(std::string(kSmall) + "[[arm]]\nname = \"a b\"\n");
  ASSERT_EQ(r.problems.size(), 1u);
  EXPECT_TRUE(mentions(r, "expected a name of letters"));
  r = parse(std::string(kSmall) + "[[arm]]\ntrain.lr = 0.1\n");
  ASSERT_EQ(r.problems.size(), 1u);
  EXPECT_TRUE(mentions(r, "number 1 needs a name"));
  EXPECT_TRUE(
      mentions(parse(std::string(kSmall) + "[arms]\nx = 1\n"), "[[arm]] with two brackets"));
}

TEST(RecipeChecks, mistakes_of_several_keys_are_told_beside_those_of_single_ones) {
  const RecipeResult r = parse(std::string(kSmall) +
                               "seeds = [1, 1]\ntrain.batch = 0\ntrain.lrr = 1\n"
                               "curriculum.pacing = \"linear\"\n[[arm]]\nname = \"a\"\n"
                               "train.nesterov = true\ntrain.momentum = 0.0\n");
  EXPECT_TRUE(mentions(r, "seed 1 is there twice"));
  EXPECT_TRUE(mentions(r, "train.batch: expected an integer in [1, 65536]"));
  EXPECT_TRUE(mentions(r, "unknown key 'train.lrr'"));
  EXPECT_TRUE(mentions(r, "pacing needs train.order"));
  EXPECT_TRUE(mentions(r, "needs SGD with momentum > 0"));
  EXPECT_EQ(r.problems.size(), 5u);
}

// What a refused value would have been nobody knows: no mistake follows from its default.
TEST(RecipeChecks, a_refused_value_is_one_mistake) {
  for (const std::string wrong : {"epochs = \"x\"", "epoch = 2", "epochs = -1"}) {
    const std::string text = "teacher.train.epochs = 2\ntrain." + wrong + "\n";
    const RecipeResult r = parse(text);
    EXPECT_EQ(r.problems.size(), 1u) << format_problems(r, text);
    const RecipeResult typed = parse(kSmall, {"train." + wrong});
    EXPECT_EQ(typed.problems.size(), 1u) << format_problems(typed, kSmall);
  }
}

TEST(RecipeChecks, settings_that_do_not_fit_together) {
  const auto refuses = [&](const std::string& extra, const std::string& text) {
    const RecipeResult r = parse(kSmall + extra);
    EXPECT_TRUE(mentions(r, text)) << extra << "\n" << format_problems(r, extra);
  };
  refuses("seeds = [1, 1]", "twice");
  refuses("curriculum.pacing = \"linear\"", "pacing needs train.order = \"curriculum\"");
  refuses("train.steps = 5", "exactly one of");
  refuses("teacher.train.batch_tokens = 5", "has no tokens");
  refuses("distill.method = \"progressive\"", "checkpoint_steps");
  refuses("data.format = \"parity\"", "arch resnet8 reads images, data parity gives features");
  refuses("data.format = \"parity\"", "features are read by mlp");
  refuses("size = \"huge\"", "there is no table [size.huge]");
  refuses("[[arm]]\nname = \"x\"\n[[arm]]\nname = \"x\"", "arm 'x' is there twice");
  refuses("[[arm]]\nname = \"../x\"", "expected a name of letters");
  refuses("[[arm]]\nname = \"x\"\ndata.root = \"y\"", "cannot differ between arms");
  refuses("arm = 3", "[[arm]]");
  refuses("student.arch = \"resnet18_cifar\"\nstudent.shortcut = \"A\"",
          "student.shortcut: expected one of auto, B for resnet18_cifar");
  refuses("teacher.arch = \"resnet50\"\nteacher.shortcut = \"A\"", "auto, B for resnet50");
}

TEST(RecipeChecks, curricula_that_cannot_be_made_are_refused_before_anything_is_trained) {
  const std::string cl = std::string(kSmall) + "train.order = \"curriculum\"\n";
  const auto accepts = [&](const std::string& extra) {
    const RecipeResult r = parse(cl + extra);
    EXPECT_TRUE(r.problems.empty()) << format_problems(r, cl + extra);
  };
  const auto refuses = [&](const std::string& extra, const std::string& text) {
    const RecipeResult r = parse(cl + extra);
    EXPECT_EQ(r.problems.size(), 1u) << extra << "\n" << format_problems(r, cl + extra);
    EXPECT_TRUE(mentions(r, text)) << extra << "\n" << format_problems(r, cl + extra);
  };
  for (const char* pacing : {"fixed_exponential", "varied_exponential", "single_step"}) {
    const std::string kind = "curriculum.pacing = \"" + std::string(pacing) + "\"\n";
    accepts(kind);
    refuses(kind + "curriculum.pacing_steps = []", "expected at least one length");
  }
  refuses("curriculum.pacing = \"fixed_exponential\"\ncurriculum.pacing_steps = [3, 4]",
          "expected one length");
  accepts("curriculum.pacing = \"varied_exponential\"\ncurriculum.pacing_steps = [3, 4]");
  refuses("curriculum.pacing = \"fixed_exponential\"\ncurriculum.increase = 1",
          "curriculum.increase: expected more than 1");
  accepts("curriculum.pacing = \"linear\"\ncurriculum.pacing_steps = []\n");  // not looked at
  refuses("curriculum.pacing = \"linear\"\ntrain.window_shuffle = 4", "nothing to shuffle");
  accepts("train.window_shuffle = 4");
  refuses("distill.reliance.mode = \"literal\"\ncurriculum.score = \"logprob\"", "use minmax");
  accepts("distill.reliance.mode = \"minmax\"\ncurriculum.score = \"logprob\"");
  refuses("curriculum.name = \"../../x\"", "expected a name of letters");
  accepts("curriculum.name = \"mine\"");
  const std::string two =
      "[[arm]]\nname = \"a\"\n[[arm]]\nname = \"b\"\ncurriculum.inverse = \"reverse_exact\"\n";
  accepts(two);
  refuses("curriculum.name = \"mine\"\n" + two, "other settings is called 'mine'");
  refuses(two + "curriculum.name = \"logit\"\n", "other settings is called 'logit'");
  refuses("teacher.train.split = 0.6\nteacher.train.files = [\"a\"]", "exclude each other");
}

TEST(RecipeChecks, a_file_is_named_once) {
  const std::string small = kSmall;
  EXPECT_TRUE(mentions(parse(small + "data.train_files = [\"a.bin\", \"b.bin\", \"./a.bin\"]\n"),
                       "data.train_files: \"./a.bin\" is there twice"));
  EXPECT_TRUE(mentions(parse(small + "teacher.train.files = [\"b\", \"b\"]\n"),
                       "teacher.train.files: \"b\" is there twice"));
  EXPECT_FALSE(mentions(parse(small + "data.train_files = [\"a.bin\"]\n"
                                      "data.test_files = [\"a.bin\"]\n"),
                        "is there twice"));
}

}  // namespace
}  // namespace retort::tools
