#include "tools/kdtrain/recipe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "kernels/common/philox.h"
#include "nn/data/registry.h"
#include "nn/models/registry.h"

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

// A model and data from outside, as a loaded library would add them: before the table is made.
[[maybe_unused]] const bool registered = [] {
  nn::ModelKind model;
  model.names = {"reader"};
  model.reads = nn::Reads::kTokens;
  model.options = {
      nn::count_option("heads", 4, 1, 64, "", "Attention heads.").with(nn::kChangesCost),
      nn::choice_option("shortcut", "auto", "auto|C", "Not the first sentence.")};
  model.check = [](const nn::Options& options) -> std::optional<nn::OptionFault> {
    if (options.integer("heads") % 2 == 0) return std::nullopt;
    return nn::OptionFault{"heads", "expected an even number"};
  };
  model.hidden_layers = [](const nn::ModelConfig&) { return std::int64_t{0}; };
  nn::model_kinds().add(model);
  nn::DataKind data;
  data.names = {"letters"};
  data.gives = nn::Reads::kTokens;
  data.options = {nn::count_option("length", 128, 1, 512, "tokens", "Longest text.").not_in_arm()};
  data.treatment = {nn::number_option("masked", 0.15, 0, 1, "fraction", "Tokens to guess.")};
  nn::data_kinds().add(data);
  return true;
}();

TEST(Schema, every_row_is_complete_and_its_default_fits) {
  for (const KeySpec& spec : schema()) {
    EXPECT_EQ(nn::fitting(spec, spec.fallback), spec.fallback) << spec.key;
    if (spec.neutral) {
      EXPECT_TRUE(nn::fitting(spec, *spec.neutral)) << spec.key;
    }
    EXPECT_FALSE(spec.doc.empty()) << spec.key;
    EXPECT_EQ(find_key(spec.key), &spec);
  }
}

TEST(Schema, rows_of_registries_stand_in_their_sections) {
  // Names are not listed twice.
  EXPECT_EQ(split(find_key("student.arch")->choices, '|'), nn::model_kinds().names());
  EXPECT_EQ(split(find_key("teacher.arch")->choices, '|'), nn::model_kinds().names());
  EXPECT_EQ(split(find_key("data.format")->choices, '|'), nn::data_kinds().names());
  for (const char* section : {"student.", "teacher."})
    for (const auto& kind : nn::model_kinds().rows())
      for (const KeySpec& option : kind->options)
        EXPECT_NE(find_key(section + option.key), nullptr) << section << option.key;
  EXPECT_NE(find_key("data.length"), nullptr);
  EXPECT_NE(find_key("data.masked"), nullptr);
  EXPECT_NE(find_key("teacher.train.masked"), nullptr);
  // What several rows read is one key that takes what any of them takes.
  const KeySpec& shortcut = *find_key("student.shortcut");
  EXPECT_EQ(shortcut.choices, "auto|A|B|C");
  EXPECT_EQ(shortcut.doc, "Residual shortcut of CIFAR ResNets: A pads, B projects.");
  // Sections have defaults of their own, and no arm has a teacher of its own.
  EXPECT_EQ(find_key("teacher.hidden")->fallback, Value(nn::Ints{1024}));
  EXPECT_EQ(find_key("student.hidden")->fallback, Value(nn::Ints{32}));
  EXPECT_TRUE(find_key("student.hidden")->in_arm);
  EXPECT_FALSE(find_key("teacher.hidden")->in_arm);
  EXPECT_FALSE(find_key("teacher.train.augment")->in_arm);
  EXPECT_TRUE(find_key("data.augment")->in_arm);
  EXPECT_FALSE(find_key("data.normalize")->effects & nn::kChangesResult);
  EXPECT_TRUE(find_key("student.normalize")->effects & nn::kChangesResult);
}

TEST(Schema, effects_say_what_a_key_decides) {
  for (const char* key :
       {"name", "description", "data.root", "train.jobs", "train.log_steps", "train.graph",
        "train.prefetch", "train.checkpoint_keep", "teacher.cache", "report.baseline"})
    EXPECT_FALSE(find_key(key)->effects & nn::kChangesResult) << key;
  for (const char* key : {"train.lr", "train.micro_batch", "data.train_sample", "student.init",
                          "distill.cutoff", "distill.parameter", "curriculum.file"})
    EXPECT_TRUE(find_key(key)->effects & nn::kChangesResult) << key;
}

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

TEST(Recipe, names_of_models_and_teachers_are_checked_with_their_place) {
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
  refuses(a + a, "two models are named 'a'");
  refuses("[[model]]\narch = \"resnet8\"\n", "[[model]] number 1 needs a name");
  refuses("[[task]]\nname = \"t\"\n[[task]]\nname = \"t\"\n", "two tasks are named 't'");
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

TEST(Recipe, models_and_data_must_fit) {
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
  refuses(text + "data.augment = \"crop_flip\"\ndata.bits = 7\n", "data letters does not read it");
  accepts(text + "data.augment = \"none\"\nstudent.normalize = \"none\"\n");
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
  refuses(text + "student.heads = 3\n", "student.heads: expected an even number");
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

TEST(Recipe, embedded_recipes_are_valid_in_every_size) {
  ASSERT_EQ(embedded_recipes().size(), 4u);
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
           "expected a list of at least one"));
  EXPECT_TRUE(told("seeds = []\n", "expected a list of at least one"));
  EXPECT_TRUE(told("teacher.seeds = [1, 1]\n", "teacher.seeds: seed 1 is there twice"));
  EXPECT_TRUE(told("teacher.train.gamma = 0\n", "teacher.train.gamma: expected a number in"));
  EXPECT_TRUE(told("arms = [\"student\", \"student\"]\n", "\"student\" is there twice"));
  EXPECT_TRUE(told("student.init = \"x\"\n", "learns from no 'x'"));
  EXPECT_TRUE(told("student.init_layers = [\"a=b\"]\n", "needs student.init"));
  EXPECT_TRUE(told("student.init = \"teacher\"\nstudent.init_layers = [\"a\"]\n",
                   "expected \"student_prefix=teacher_prefix\""));
  EXPECT_TRUE(told("student.init = \"teacher\"\nstudent.weights = \"w\"\n", "one of them"));
  EXPECT_TRUE(told("distill.parameter = 0.5\n", "forward_kl has none"));
  EXPECT_TRUE(told("distill.divergence = \"jensen_shannon\"\ndistill.parameter = 0\n",
                   "expected a number in (0, 1) for jensen_shannon"));
  EXPECT_FALSE(told("distill.divergence = \"skew_kl\"\ndistill.parameter = 0\n", ""));
  EXPECT_TRUE(told("train.order = \"curriculum\"\ncurriculum.scorer = \"file\"\n",
                   "needs curriculum.file"));
  EXPECT_TRUE(told("curriculum.file = \"x\"\n", "curriculum.scorer = \"file\" only"));
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
  EXPECT_NE(shown.find("r.toml:2:1: error[RT0201]: unknown key 'distill.temprature'"),
            std::string::npos);
  EXPECT_NE(shown.find("r.toml:3:10: error[RT0218]: distill.lambda"), std::string::npos);
  EXPECT_NE(shown.find("command line, argument 1: error[RT0218]: train.batch"), std::string::npos);
  EXPECT_NE(shown.find("7 errors; nothing was started"), std::string::npos);
}

TEST(Recipe, mistakes_of_several_keys_show_the_line_that_decides) {
  const std::string text = std::string(kSmall) +
                           "[[arm]]\nname = \"a\"\n  train.nesterov = true\n"
                           "train.momentum = 0.0\n[[arm]]\nname = \"b\"\n";
  EXPECT_EQ(format_problems(parse(text), text),
            "r.toml:5:9: error[RT0299]: arm 'a': train.nesterov: needs SGD with momentum > 0\n"
            "    5 |   train.nesterov = true\n"
            "      |         ^\n"
            "1 error; nothing was started\n");
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
  refuses("data.format = \"parity\"", "arch resnet8 reads images, data parity gives features");
  refuses("data.format = \"parity\"", "features are read by mlp");
  refuses("size = \"huge\"", "there is no table [size.huge]");
  refuses("[[arm]]\nname = \"x\"\n[[arm]]\nname = \"x\"", "two arms are named 'x'");
  refuses("[[arm]]\nname = \"../x\"", "expected a name of letters");
  refuses("[[arm]]\nname = \"x\"\ndata.root = \"y\"", "cannot differ between arms");
  refuses("arm = 3", "[[arm]]");
  refuses("student.arch = \"resnet18_cifar\"\nstudent.shortcut = \"A\"",
          "student.shortcut: expected one of auto, B for resnet18_cifar");
  refuses("teacher.arch = \"resnet50\"\nteacher.shortcut = \"A\"", "auto, B for resnet50");
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
