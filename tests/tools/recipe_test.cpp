#include "tools/kdtrain/recipe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "kernels/common/philox.h"
#include "nn/data/registry.h"
#include "nn/models/registry.h"
#include "tests/tools/recipe_fixture.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace retort::tools {
namespace {

TEST(Recipe, options_of_a_row_are_read_from_its_section) {
  const RecipeResult r = parse(kSmall, {"student.hidden=7,8", "teacher.shortcut=B"});
  const nn::ModelKind& mlp = nn::model_kinds().at("mlp");
  const nn::Options options = options_of(r.recipe.base, "student", mlp.options);
  EXPECT_EQ(options.integers("hidden"), (nn::Ints{7, 8}));
  EXPECT_EQ(options.text("output"), "auto");
  EXPECT_FALSE(options.has("shortcut"));
  const nn::ModelKind& resnet = nn::model_kinds().at("resnet8");
  EXPECT_EQ(options_of(r.recipe.base, "teacher", resnet.options).text("shortcut"), "B");
}

TEST(Recipe, equal_cost_signatures_mean_equal_work) {
  const auto cost = [](const std::vector<std::string>& words) {
    return cost_signature(parse(kSmall, words).recipe.arms[0].settings);
  };
  const std::string plain = cost({});
  for (const char* free :
       {"train.lr=0.5", "train.momentum=0.5", "distill.lambda=0.25", "distill.temperature=2",
        "train.order=curriculum", "train.gamma=0.5", "train.epochs=9", "seeds=4"})
    EXPECT_EQ(cost({free}), plain) << free;
  for (const char* dear :
       {"train.momentum=0", "train.clip_norm=1", "distill.lambda=0", "train.batch=64",
        "train.micro_batch=8", "student.arch=resnet14", "student.widths=8,8,16,32",
        "train.precision=bf16", "data.augment=none", "distill.divergence=reverse_kl",
        "train.optimizer=adamw", "student.normalize=none"})
    EXPECT_NE(cost({dear}), plain) << dear;
  EXPECT_EQ(cost({"train.clip_norm=1"}), cost({"train.clip_norm=2"}));
}

TEST(Recipe, curricula_are_named_after_what_decides_them) {
  const auto settings = [](std::vector<std::string> words) {
    words.emplace_back("train.order=curriculum");
    return parse(kSmall, words).recipe.base;
  };
  const auto name = [&](const std::vector<std::string>& words) {
    return curriculum_name(settings(words));
  };
  EXPECT_EQ(name({}), "logit");
  EXPECT_EQ(name({"curriculum.inverse=reverse_exact", "curriculum.stratify=false"}),
            "logit_reverse_exact_unstratified");
  EXPECT_EQ(name({"curriculum.scorer=random"}), "random");
  EXPECT_EQ(name({"curriculum.scorer=random", "curriculum.score=loss"}), "random_loss");
  EXPECT_EQ(name({"curriculum.pacing=linear", "train.lr=3"}), "logit");
  EXPECT_EQ(name({"curriculum.nan=drop"}), "logit_nan_drop");
  EXPECT_EQ(name({"curriculum.nan=sentinel", "curriculum.nan_value=2"}),
            "logit_nan_sentinel_nan_value_2.0");
  EXPECT_EQ(name({"curriculum.scorer=file", "curriculum.file=a/my scores.csv"}),
            "logit_of_file_file_my_scores");
  EXPECT_EQ(name({"curriculum.scorer=student"}), "logit_of_student_resnet8");
  EXPECT_EQ(name({"curriculum.name=mine"}), "mine");
  const auto order = [&](const std::vector<std::string>& words) {
    return order_signature(settings(words));
  };
  EXPECT_EQ(order({"train.lr=3", "curriculum.pacing=linear", "student.arch=resnet14"}), order({}));
  EXPECT_EQ(order({"curriculum.scorer=random", "curriculum.inverse=reverse_exact"}),
            order({"curriculum.scorer=random"}));
  for (const char* other : {"curriculum.score=loss", "curriculum.inverse=reverse_exact",
                            "curriculum.nan=drop", "curriculum.stratify=false"})
    EXPECT_NE(order({other}), order({})) << other;
  EXPECT_NE(order({"curriculum.scorer=student", "student.arch=resnet14"}),
            order({"curriculum.scorer=student"}));
  // Files of one stem are told apart, or the recipe is refused.
  const std::string two = std::string(kSmall) +
                          "train.order = \"curriculum\"\ncurriculum.scorer = \"file\"\n" +
                          "[[arm]]\nname = \"a\"\ncurriculum.file = \"x/s.csv\"\n"
                          "[[arm]]\nname = \"b\"\ncurriculum.file = \"y/s.csv\"\n";
  EXPECT_TRUE(mentions(parse(two), "a curriculum of other settings"));
}

TEST(Recipe, a_rule_to_stop_is_a_metric_a_side_and_a_number) {
  const auto rule = parse_stop_rule("macro_f1 >= 0.5");
  ASSERT_TRUE(rule);
  EXPECT_EQ(rule->metric, "macro_f1");
  EXPECT_TRUE(rule->at_least);
  EXPECT_EQ(rule->value, 0.5);
  EXPECT_FALSE(parse_stop_rule("loss<=1e-2")->at_least);
  for (const char* wrong : {"", "accuracy", "accuracy > 0.9", "accuracy >=", ">= 1", "a b >= 1",
                            "accuracy >= nan", "accuracy >= 1x"})
    EXPECT_FALSE(parse_stop_rule(wrong)) << wrong;
  EXPECT_TRUE(mentions(parse(kSmall, {"train.stop_at=accuracy"}), "accuracy >= 0.99"));
  EXPECT_TRUE(
      mentions(parse(kSmall, {"train.stop_at=macro_f2 >= 0.9"}), "did you mean 'macro_f1'"));
  EXPECT_TRUE(mentions(parse(kSmall, {"train.stop_at=wall_s >= 9"}), "no metric 'wall_s'"));
  EXPECT_TRUE(mentions(parse(kSmall, {"train.stop_at=loss<=1", "train.stop_at_accuracy=0.9"}),
                       "expected one of them"));
  EXPECT_TRUE(parse(kSmall, {"train.stop_at=loss <= 1"}).problems.empty());
}

constexpr const char* kChain =
    "train.epochs = 3\nteacher.train.epochs = 2\nteacher.arch = \"resnet56\"\n"
    "[[model]]\nname = \"small\"\narch = \"resnet14\"\nteachers = [\"big\"]\n"
    "[[model]]\nname = \"big\"\narch = \"resnet20\"\ntrain.lr = 0.25\n"
    "[[arm]]\nname = \"direct\"\n[[arm]]\nname = \"chain\"\nteachers = [\"small\", \"teacher\"]\n";

TEST(Recipe, models_stand_between_the_teacher_and_the_arms) {
  const RecipeResult r = parse(kChain, {"model.small.train.batch=32", "train.momentum=0.5"});
  ASSERT_TRUE(r.problems.empty()) << format_problems(r, kChain);
  ASSERT_EQ(r.recipe.models.size(), 2u);
  const ModelSpec& big = r.recipe.models[0];  // before whoever learns from it
  EXPECT_EQ(big.name, "big");
  EXPECT_EQ(big.teachers, Teachers{"teacher"});
  EXPECT_EQ(big.settings.text("student.arch"), "resnet20");
  EXPECT_EQ(big.settings.number("train.lr"), 0.25);
  EXPECT_EQ(big.settings.number("train.momentum"), 0.5);
  EXPECT_EQ(big.owned, (std::vector<std::string>{"student.arch", "train.lr"}));
  EXPECT_EQ(big.place, "r.toml:9:1");
  const ModelSpec& small = r.recipe.models[1];
  EXPECT_EQ(small.teachers, Teachers{"big"});
  EXPECT_EQ(small.settings.integer("train.batch"), 32);
  EXPECT_EQ(r.recipe.arms[0].teachers, Teachers{"teacher"});
  EXPECT_EQ(r.recipe.arms[1].teachers, (Teachers{"small", "teacher"}));
  EXPECT_EQ(r.recipe.arms[1].settings.text("student.arch"), "resnet8");
}

TEST(Recipe, tasks_override_arms) {
  const std::string text = std::string(kSmall) +
                           "[[task]]\nname = \"first\"\ndata.format = \"cifar100\"\n"
                           "[[task]]\nname = \"then\"\ndistill.lambda = 0.0\n"
                           "[[arm]]\nname = \"a\"\ndistill.lambda = 0.9\n";
  const RecipeResult r = parse(text, {"task.then.train.lr=0.5"});
  ASSERT_TRUE(r.problems.empty()) << format_problems(r, text);
  ASSERT_EQ(r.recipe.tasks.size(), 2u);
  const Settings first = in_task(r.recipe.arms[0].settings, r.recipe.tasks[0]);
  const Settings then = in_task(r.recipe.arms[0].settings, r.recipe.tasks[1]);
  EXPECT_EQ(first.text("data.format"), "cifar100");
  EXPECT_EQ(first.number("distill.lambda"), 0.9);
  EXPECT_EQ(then.text("data.format"), "cifar10");
  EXPECT_EQ(then.number("distill.lambda"), 0);
  EXPECT_EQ(then.number("train.lr"), 0.5);
}

TEST(Recipe, models_and_tasks_come_back_from_the_resolved_recipe) {
  const std::string text = std::string(kChain) +
                           "[[task]]\nname = \"one\"\ndata.train_limit = 100\n"
                           "[[task]]\nname = \"two\"\ntrain.epochs = 1\ntrain.lr = 0.5\n";
  const RecipeResult first = parse(text);
  ASSERT_TRUE(first.problems.empty()) << format_problems(first, text);
  const std::string resolved = resolved_toml(first.recipe);
  const RecipeResult second = parse_recipe("recipe.resolved.toml", resolved, {});
  ASSERT_TRUE(second.problems.empty()) << format_problems(second, resolved);
  const Recipe &a = first.recipe, &b = second.recipe;
  ASSERT_EQ(a.models.size(), b.models.size());
  ASSERT_EQ(a.tasks.size(), b.tasks.size());
  ASSERT_EQ(a.arms.size(), b.arms.size());
  const auto same = [](const Settings& x, const Settings& y) {
    for (const KeySpec& spec : schema())
      if (spec.key != "name") {
        EXPECT_EQ(x.value(spec.key), y.value(spec.key)) << spec.key;
      }
  };
  for (std::size_t i = 0; i < a.models.size(); ++i) {
    EXPECT_EQ(a.models[i].name, b.models[i].name);
    EXPECT_EQ(a.models[i].teachers, b.models[i].teachers);
    EXPECT_EQ(a.models[i].owned, b.models[i].owned);
    same(a.models[i].settings, b.models[i].settings);
  }
  for (std::size_t i = 0; i < a.tasks.size(); ++i) {
    EXPECT_EQ(a.tasks[i].name, b.tasks[i].name);
    same(in_task(a.base, a.tasks[i]), in_task(b.base, b.tasks[i]));
  }
  for (std::size_t i = 0; i < a.arms.size(); ++i) EXPECT_EQ(a.arms[i].teachers, b.arms[i].teachers);
}

TEST(Recipe, embedded_recipes_are_valid_in_every_size) {
  ASSERT_EQ(embedded_recipes().size(), 6u);
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

TEST(Recipe, a_resolved_recipe_leaves_out_what_its_data_does_not_read) {
  const RecipeText parity = find_recipe("parity_extraction");
  const RecipeResult first = parse_recipe(parity.source, parity.text, {});
  ASSERT_TRUE(first.problems.empty());
  const std::string resolved = resolved_toml(first.recipe);
  for (const char* key : {"augment", "normalize"})
    EXPECT_EQ(resolved.find(std::string("\n") + key + " = "), std::string::npos) << key;
  EXPECT_NE(resolved.find("\nshortcut = "), std::string::npos);
  EXPECT_TRUE(parse_recipe("my.toml", resolved, {}).problems.empty());
  EXPECT_FALSE(parse_recipe("my.toml",
                            parity.text + "\n[[arm]]\nname = \"a\"\ndata.augment = \"crop_flip\"\n",
                            {})
                   .problems.empty());
  // As folders have it from before keys were left out.
  std::string old = resolved;
  old.insert(old.find("[data]\n") + 7, "augment = \"crop_flip\"\n");
  EXPECT_TRUE(parse_recipe("runs/x/recipe.resolved.toml", old, {}).problems.empty());
  EXPECT_FALSE(parse_recipe("my.toml", old, {}).problems.empty());
  // Images read both.
  const RecipeText six = find_recipe("cifar10_six_arms");
  const std::string images = resolved_toml(parse_recipe(six.source, six.text, {}).recipe);
  for (const char* key : {"augment", "normalize"})
    EXPECT_NE(images.find(std::string("\n") + key + " = "), std::string::npos) << key;
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
