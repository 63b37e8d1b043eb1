#include "tools/kdtrain/recipe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "kernels/common/philox.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace retort::tools {
namespace {

RecipeResult parse(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return parse_recipe("r.toml", text, overrides);
}
constexpr const char* kSmall = "train.epochs = 3\nteacher.train.epochs = 2\n";

bool mentions(const RecipeResult& result, const std::string& text) {
  return std::any_of(result.problems.begin(), result.problems.end(), [&](const RecipeProblem& p) {
    return (p.message + " " + p.hint).find(text) != std::string::npos;
  });
}

TEST(Recipe, embedded_recipes_are_valid_in_every_size) {
  ASSERT_EQ(embedded_recipes().size(), 3u);
  for (const EmbeddedRecipe& recipe : embedded_recipes()) {
    const RecipeResult result = parse_recipe(recipe.name, recipe.text, {});
    EXPECT_TRUE(result.problems.empty()) << format_problems(result, recipe.text);
  }
  const RecipeText six = find_recipe("cifar10_six_arms");
  const RecipeResult paper = parse_recipe(six.source, six.text, {"size=paper"});
  ASSERT_TRUE(paper.problems.empty()) << format_problems(paper, six.text);
  EXPECT_EQ(paper.recipe.base.text("teacher.arch"), "resnet152");
  EXPECT_EQ(paper.recipe.arms.size(), 6u);
  EXPECT_EQ(paper.recipe.arms[5].settings.integer("train.epochs"), 300);
  for (const Arm& arm : paper.recipe.arms) {  // the papers' own lambda
    const bool reliant = arm.name.ends_with("_sr");
    EXPECT_EQ(arm.settings.text("distill.reliance.mode"), reliant ? "literal" : "off") << arm.name;
    EXPECT_FALSE(arm.settings.flag("distill.reliance.clamp"));
  }
  EXPECT_TRUE(parse_recipe("again", resolved_toml(paper.recipe), {}).problems.empty());
}

TEST(Recipe, a_size_may_set_keys_of_single_arms) {
  const std::string text = std::string(kSmall) +
                           "[[arm]]\nname = \"a\"\ntrain.lr = 0.1\n[[arm]]\nname = \"b.c\"\n"
                           "[size.big]\ntrain.lr = 0.5\narm.a.train.lr = 0.2\n"
                           "arm.\"b.c\".train.lr = 0.3\n";
  const auto rates = [&](const std::vector<std::string>& words) {
    const RecipeResult result = parse_recipe("r.toml", text, words);
    EXPECT_TRUE(result.problems.empty()) << format_problems(result, text);
    return std::pair{result.recipe.arms[0].settings.number("train.lr"),
                     result.recipe.arms[1].settings.number("train.lr")};
  };
  EXPECT_EQ(rates({}), (std::pair{0.1, 0.1}));
  EXPECT_EQ(rates({"size=big"}), (std::pair{0.2, 0.3}));
  EXPECT_EQ(rates({"arm.a.train.lr=0.4", "size=big"}), (std::pair{0.4, 0.3}));
  const RecipeResult wrong =
      parse_recipe("r.toml", text + "arm.x.train.lr = 1\narm.a.seeds = [1]\n", {});
  EXPECT_TRUE(mentions(wrong, "there is no arm 'x'"));
  EXPECT_TRUE(mentions(wrong, "cannot differ between arms"));
}

TEST(Recipe, what_would_mean_something_else_is_refused) {
  const auto told = [](const std::string& more, const std::string& message) {
    return mentions(parse_recipe("r.toml", std::string(kSmall) + more, {}), message);
  };
  EXPECT_TRUE(told("teacher.train.order = \"curriculum\"\n", "made by a trained teacher"));
  EXPECT_TRUE(
      told("data.format = \"parity\"\nteacher.arch = \"mlp\"\nstudent.arch = \"mlp\"\n"
           "student.hidden = []\n",
           "at least one hidden layer"));
  EXPECT_TRUE(told("teacher.weights = \"w.safetensors\"\nteacher.seeds = [1, 2]\n", "one seed"));
  EXPECT_TRUE(told("[arm.\"#x\"]\ntrain.lr = 1\n", "[[arm]] with two brackets"));
  EXPECT_TRUE(told("[arm.\"#4000000000\"]\ntrain.lr = 1\n", "[[arm]] with two brackets"));
}

TEST(Recipe, precedence_default_recipe_size_command_line_arm) {
  const std::string text =
      "train.epochs = 3\nteacher.train.epochs = 1\ntrain.lr = 1.0\ndistill.lambda = 0.1\n"
      "[size.big]\ntrain.lr = 2.0\ntrain.batch = 7\n"
      "[[arm]]\nname = \"a\"\ndistill.lambda = 0.2\n[[arm]]\nname = \"b\"\n";
  RecipeResult r = parse(text);
  ASSERT_TRUE(r.problems.empty()) << format_problems(r, text);
  EXPECT_EQ(r.recipe.base.number("train.lr"), 1.0);
  EXPECT_EQ(r.recipe.base.integer("train.batch"), 128);
  EXPECT_EQ(r.recipe.base.origin("train.lr"), "r.toml:3:7");
  r = parse(text, {"size=big", "train.batch=9", "distill.lambda=0.3", "arm.b.distill.lambda=0.4"});
  ASSERT_TRUE(r.problems.empty()) << format_problems(r, text);
  EXPECT_EQ(r.recipe.base.number("train.lr"), 2.0);
  EXPECT_EQ(r.recipe.base.integer("train.batch"), 9);
  EXPECT_EQ(r.recipe.arms[0].settings.number("distill.lambda"), 0.2);  // the arm's own stays
  EXPECT_EQ(r.recipe.arms[1].settings.number("distill.lambda"), 0.4);
  EXPECT_EQ(r.warnings.size(), 1u);  // and says so
  r = parse(text, {"arms=b"});
  ASSERT_EQ(r.recipe.arms.size(), 1u);
  EXPECT_EQ(r.recipe.arms[0].name, "b");
}

TEST(Recipe, steps_on_the_command_line_replace_the_epochs_of_the_recipe) {
  RecipeResult r = parse(kSmall, {"train.steps=5", "teacher.train.steps=4"});
  ASSERT_TRUE(r.problems.empty()) << format_problems(r, kSmall);
  EXPECT_EQ(r.recipe.base.integer("train.epochs"), 0);
  EXPECT_EQ(r.recipe.base.integer("train.steps"), 5);
  EXPECT_EQ(r.recipe.base.integer("teacher.train.epochs"), 0);
  EXPECT_EQ(r.recipe.base.origin("train.epochs"), "command line, for train.steps");
  r = parse("train.steps = 9\nteacher.train.epochs = 1\n", {"train.epochs=2"});
  ASSERT_TRUE(r.problems.empty());
  EXPECT_EQ(r.recipe.base.integer("train.steps"), 0);
  EXPECT_FALSE(parse(kSmall, {"train.steps=5", "train.epochs=1"}).problems.empty());
  EXPECT_FALSE(parse(kSmall, {"train.epochs=0"}).problems.empty());
  // Inside the recipe itself both are a mistake, told once and not for each arm.
  const std::string both =
      std::string(kSmall) + "train.steps = 3\n[[arm]]\nname = \"a\"\n" + "[[arm]]\nname = \"b\"\n";
  r = parse(both);
  ASSERT_EQ(r.problems.size(), 1u) << format_problems(r, both);
  EXPECT_EQ(r.problems[0].message.find("arm '"), std::string::npos);
  const std::string own =
      std::string(kSmall) + "[[arm]]\nname = \"a\"\ntrain.steps = 3\n" + "[[arm]]\nname = \"b\"\n";
  r = parse(own);
  ASSERT_EQ(r.problems.size(), 1u) << format_problems(r, own);
  EXPECT_TRUE(mentions(r, "arm 'a'"));
}

TEST(Recipe, all_mistakes_at_once_with_places_and_suggestions) {
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
  EXPECT_NE(shown.find("r.toml:2:1: error: unknown key 'distill.temprature'"), std::string::npos);
  EXPECT_NE(shown.find("r.toml:3:10: error: distill.lambda"), std::string::npos);
  EXPECT_NE(shown.find("command line, argument 1: error: train.batch"), std::string::npos);
  EXPECT_NE(shown.find("7 errors; nothing was started"), std::string::npos);
}

TEST(Recipe, a_mistake_in_an_arm_is_told_once) {
  RecipeResult r = parse(std::string(kSmall) + "[[arm]]\nname = \"a b\"\n");
  ASSERT_EQ(r.problems.size(), 1u);
  EXPECT_TRUE(mentions(r, "expected a name of letters"));
  r = parse(std::string(kSmall) + "[[arm]]\ntrain.lr = 0.1\n");
  ASSERT_EQ(r.problems.size(), 1u);
  EXPECT_TRUE(mentions(r, "number 1 needs a name"));
  EXPECT_TRUE(
      mentions(parse(std::string(kSmall) + "[arms]\nx = 1\n"), "[[arm]] with two brackets"));
}

TEST(Recipe, settings_that_do_not_fit_together) {
  const auto refuses = [&](const std::string& extra, const std::string& text) {
    const RecipeResult r = parse(kSmall + extra);
    EXPECT_TRUE(mentions(r, text)) << extra << "\n" << format_problems(r, extra);
  };
  refuses("seeds = [1, 1]", "twice");
  refuses("distill.reliance.mode = \"rank\"", "needs train.order = \"curriculum\"");
  refuses("train.steps = 5", "exactly one of");
  refuses("distill.method = \"progressive\"", "checkpoint_steps");
  refuses("data.format = \"parity\"", "parity needs an mlp");
  refuses("size = \"huge\"", "there is no table [size.huge]");
  refuses("[[arm]]\nname = \"x\"\n[[arm]]\nname = \"x\"", "two arms are named 'x'");
  refuses("[[arm]]\nname = \"../x\"", "expected a name of letters");
  refuses("[[arm]]\nname = \"x\"\ndata.root = \"y\"", "cannot differ between arms");
  refuses("arm = 3", "[[arm]]");
  refuses("student.arch = \"resnet18_cifar\"\nstudent.shortcut = \"A\"",
          "A belongs to the CIFAR nets");
  refuses("teacher.arch = \"resnet50\"\nteacher.shortcut = \"A\"", "not to resnet50");
}

TEST(Recipe, curricula_that_cannot_be_made_are_refused_before_anything_is_trained) {
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

TEST(Recipe, normalisation_takes_words_and_numbers) {
  RecipeResult r = parse(std::string(kSmall) +
                         "student.normalize = [[0.1, 0.2, 0.3], [1, 2, 3]]\n"
                         "teacher.normalize = [0.5, 0.25]\n");
  ASSERT_TRUE(r.problems.empty());
  EXPECT_EQ(r.recipe.base.numbers("student.normalize").size(), 6u);
  EXPECT_EQ(r.recipe.base.numbers("teacher.normalize")[1], 0.25);
  EXPECT_FALSE(parse("student.normalize = [0.5, 0.0]").problems.empty());
  EXPECT_FALSE(parse("student.normalize = \"cifra\"").problems.empty());
  r = parse(kSmall, {"student.normalize=imagenet", "seeds=3,4", "data.train_files=a.bin,b.bin"});
  ASSERT_TRUE(r.problems.empty());
  EXPECT_EQ(r.recipe.base.text("student.normalize"), "imagenet");
  EXPECT_EQ(r.recipe.base.integers("seeds"), (std::vector<std::int64_t>{3, 4}));
  EXPECT_EQ(r.recipe.base.texts("data.train_files").size(), 2u);
}

TEST(Recipe, resolved_recipe_is_a_recipe_with_origins) {
  const RecipeText six = find_recipe("cifar10_six_arms");
  const RecipeResult first = parse_recipe(six.source, six.text, {"size=paper", "train.batch=96"});
  ASSERT_TRUE(first.problems.empty());
  const std::string resolved = resolved_toml(first.recipe);
  EXPECT_NE(resolved.find("# command line"), std::string::npos);
  EXPECT_NE(resolved.find("# default"), std::string::npos);
  EXPECT_NE(resolved.find("# embedded:cifar10_six_arms:"), std::string::npos);
  const RecipeResult second = parse_recipe("recipe.resolved.toml", resolved, {});
  ASSERT_TRUE(second.problems.empty()) << format_problems(second, resolved);
  for (const KeySpec& spec : schema()) {
    if (spec.key == "size") continue;
    EXPECT_EQ(to_toml(first.recipe.base.value(spec.key)),
              to_toml(second.recipe.base.value(spec.key)));
    for (std::size_t i = 0; i < first.recipe.arms.size(); ++i)
      EXPECT_EQ(to_toml(first.recipe.arms[i].settings.value(spec.key)),
                to_toml(second.recipe.arms[i].settings.value(spec.key)));
  }
}

TEST(Recipe, guard_refuses_what_breaks_parsers) {
  const auto refused = [](const std::string& text) { return !read_toml(text).problems.empty(); };
  EXPECT_TRUE(refused("[\x0b"));                 // aborts toml++ 3.3.0 without NDEBUG
  EXPECT_TRUE(refused("v =\xef\xbb\xbe\"a\""));  // unreachable branch in toml++ 3.3.0
  std::string dotted = "a";
  for (int i = 0; i < 300'000; ++i) dotted += ".a";  // stack overflow in toml++ 3.3.0
  EXPECT_TRUE(refused(dotted + " = 1"));
  EXPECT_TRUE(refused("a = " + std::string(100'000, '[')));
  EXPECT_TRUE(refused("a = \"\x80\""));          // not UTF-8
  EXPECT_TRUE(refused("a = \"\xef\xbf\xbf\""));  // U+FFFF
  EXPECT_TRUE(refused("a = \"\xed\xa0\x80\""));  // a surrogate
  EXPECT_TRUE(refused("\xc3\xa9 = 1"));          // non-ASCII outside quotes
  EXPECT_TRUE(refused("a = 1\na = 2"));          // duplicate key
  EXPECT_TRUE(refused(std::string(kMaxRecipeBytes + 1, ' ')));
  EXPECT_FALSE(refused("a = \"\xc3\xa9\" # \xc3\xa9\nb = '''x'y'''\nc = \"\"\"q\"\"\"\"\"\r\n"));
  std::string many = "a = [0.5";
  for (int i = 0; i < 100; ++i) many += ", 0.5";  // dots of numbers are not key parts
  EXPECT_FALSE(refused(many + "]"));
}

TEST(Recipe, hostile_bytes_never_crash_the_parser) {
  std::vector<std::string> corpus;
  for (const EmbeddedRecipe& recipe : embedded_recipes()) corpus.emplace_back(recipe.text);
  corpus.emplace_back("a.b = [[1, {x = 'y'}], 1979-05-27T07:32:00Z, 0x1F, 1e3, inf, nan]\n");
  corpus.emplace_back("\"q\\u00e9\" = \"\"\"\n\\\n x\"\"\"\n[[arm]]\n[[arm.x]]\ny=1\n[arm.z]\n");
  const auto feed = [](const std::string& text) {
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
  };
  for (const std::string& text : corpus) feed(text);
  constexpr const char* kPieces[] = {"[",       "]",       "{",
                                     "}",       "=",       ".",
                                     "\"",      "'",       "\"\"\"",
                                     "'''",     "#",       "\n",
                                     "\\",      "\x0b",    "\xef\xbb\xbe",
                                     "[[arm]]", ",",       "0",
                                     "e",       "\\uD800", "\\U00110000",
                                     "\x80",    "-",       "_",
                                     "nan",     "t"};
  for (std::uint32_t i = 0; i < 1500; ++i) {
    std::string text = corpus[i % corpus.size()];
    const std::size_t begin = philox(1, i, 0, 0, 0).v[0] % (text.size() + 1);
    text = text.substr(begin, 40 + philox(1, i, 0, 0, 1).v[0] % 400);
    for (std::uint32_t k = 0; k <= i % 5; ++k) {
      const Philox4 r = philox(2, i, k, 0, 0);
      const std::size_t at = r.v[0] % (text.size() + 1);
      if (r.v[1] % 3 == 0 && !text.empty())
        text.erase(at == text.size() ? at - 1 : at, 1 + r.v[2] % 4);
      else if (r.v[1] % 3 == 1 && at < text.size())
        text[at] = static_cast<char>(r.v[2]);
      else
        text.insert(at, kPieces[r.v[2] % std::size(kPieces)]);
    }
    feed(text);
  }
}

}  // namespace
}  // namespace retort::tools
