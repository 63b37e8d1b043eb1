// The ranges of the schema are the ranges that work: every key, at both ends.
#include "kernels/common/check.h"
#include "tests/tools/table_fixture.h"
#include "tools/kdtrain/prepare.h"
#include "tools/kdtrain/recipe.h"

namespace retort::tools {
namespace {

bool is_number(const KeySpec& spec) {
  return spec.type == Type::kInt || spec.type == Type::kFloat || spec.type == Type::kInts ||
         spec.type == Type::kFloats;
}

std::string value_of(const KeySpec& spec, bool most) {
  const double end = most ? spec.most : spec.least;
  std::string text = to_toml(spec.type == Type::kInt || spec.type == Type::kInts
                                 ? Value(static_cast<std::int64_t>(end))
                                 : Value(end));
  return spec.type == Type::kInts || spec.type == Type::kFloats ? "[" + text + "]" : text;
}

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

  void run_all(const std::string& distill) {
    std::string arms = "[[arm]]\nname = \"plain\"\n";
    int count = 0;
    for (const KeySpec& spec : schema()) {
      if (!is_number(spec) || !spec.in_arm || spec.key.starts_with("student.")) continue;
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

// Every key on data and models that read it. Ends that can stand together share a run.
class RangesOfAllKeys : public KdtrainTable {
 protected:
  struct Base {
    std::string name, text;
    std::vector<std::vector<std::string>> runs = {}, wild_runs = {};  // wild: may diverge
  };

  std::vector<Base> bases() const {
    table("train.csv", 20, 1);
    table("test.csv", 20, 2);
    std::string vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n.\n", texts;
    for (int w = 0; w < 10; ++w) vocab += "w" + std::to_string(w) + "\n";
    for (int i = 0; i < 20; ++i)
      texts += "w" + std::to_string(i % 10) + " w" + std::to_string(i * 3 % 10) + " .\n";
    write("data/vocab.txt", vocab);
    write("data/train.txt", texts);
    images("a.bin", 20, 1);
    const auto recipe = [&](const std::string& data, const std::string& model,
                            const std::string& more) {
      return "seeds = [1]\n[data]\nroot = \"" + path("data") + "\"\n" + data + "[teacher]\n" +
             model + "allow_untrained = true\ntrain = { steps = 2, batch = 4 }\n[student]\n" +
             model + "[train]\nsteps = 3\nbatch = 4\n" + more;
    };
    const std::string csv =
        "format = \"table\"\ntrain_files = [\"train.csv\"]\ntest_files = [\"test.csv\"]\n";
    const std::string mlp = "arch = \"mlp\"\nhidden = [8]\n";
    const std::string order = "order = \"curriculum\"\n";
    std::vector<Base> all;
    all.push_back({"table", recipe(csv, mlp, order + "[distill.reliance]\nmode = \"minmax\"\n")});
    all.push_back(
        {"paced", recipe(csv, mlp, order + "[curriculum]\npacing = \"varied_exponential\"\n")});
    all.push_back(
        {"text",
         recipe("format = \"text\"\nvocab = \"vocab.txt\"\ncase = \"cased\"\ncache = \"" +
                    path("cache") +
                    "\"\ntrain_files = [\"train.txt\"]\ntest_files = [\"train.txt\"]\n",
                "arch = \"bert\"\nlayers = 1\nhidden_size = 8\nheads = 1\nintermediate = 8\n",
                "")});
    all.push_back({"parity",
                   "data = { format = \"parity\", bits = 8, support = 2, test_size = 32 }\n"
                   "[teacher]\n" +
                       mlp +
                       "allow_untrained = true\ntrain = { steps = 2, batch = 4, "
                       "checkpoint_steps = 1 }\n[student]\n" +
                       mlp + "[train]\nsteps = 3\nbatch = 4\n[distill]\nprogressive.steps = 1\n"});
    all.push_back({"images", recipe("format = \"cifar10\"\ntrain_files = [\"a.bin\"]\ntest_files = "
                                    "[\"a.bin\"]\n",
                                    "arch = \"resnet8\"\n", "")});
    return all;
  }

  // At this end a key asks for hours, or for more memory than a test may take.
  static bool is_too_much(const KeySpec& spec, bool most) {
    if (!most) return false;
    const std::string name = spec.key.substr(spec.key.rfind('.') + 1);
    static const std::set<std::string> sizes{
        "steps", "epochs", "test_size", "ids",        "widths",      "hidden",      "layers",
        "heads", "width",  "positions", "vocabulary", "hidden_size", "intermediate"};
    return sizes.contains(name);
  }
  static bool is_wild(const KeySpec& spec) {
    for (const char* part : {"lr", "decay", "weight", "lambda", "temperature", "normalize"})
      if (spec.key.find(part) != std::string::npos) return true;
    return false;
  }

  /// "" if base with these words can run; else why not.
  static std::string fault_of(const Base& base, const std::vector<std::string>& words) {
    const RecipeResult result = parse_recipe(base.name + ".toml", base.text, words);
    if (!result.problems.empty()) return result.problems.front().message;
    try {
      check_files(result.recipe);
    } catch (const Error& e) {
      EXPECT_TRUE(e.code() == ErrorCode::kUsage || e.code() == ErrorCode::kBadInput) << e.what();
      return e.what();
    }
    return "";
  }

  /// Adds the word to the first run that it can stand in, as far as the recipe goes.
  static void add(const Base& base, const std::string& word,
                  std::vector<std::vector<std::string>>* runs) {
    const std::string key = word.substr(0, word.find('=') + 1);
    for (std::vector<std::string>& run : *runs) {
      if (std::any_of(run.begin(), run.end(),
                      [&](const std::string& other) { return other.starts_with(key); }))
        continue;
      run.push_back(word);
      if (parse_recipe(base.name + ".toml", base.text, run).problems.empty()) return;
      run.pop_back();
    }
    runs->push_back({word});
  }
};

TEST_F(RangesOfAllKeys, work_where_they_are_read) {
  std::vector<Base> all = bases();
  for (const Base& base : all) ASSERT_EQ(fault_of(base, {}), "") << base.name;
  std::set<std::string> untried, known;  // beside rows that other tests of this program add
  const Json rows = Json::parse(run({"schema", "--json"}).out, "schema");
  for (const Json& row : rows.items()) known.insert(row.at("key").as_string());
  // BioASQ's own: they want its files of questions.
  for (const char* key : {"data.per_class", "data.split_seed"}) known.erase(key);
  int count = 0;
  for (const KeySpec& spec : schema()) {
    if (!is_number(spec) || !known.contains(spec.key)) continue;
#if defined(RETORT_SANITIZED)
    if (path_hash(spec.key.c_str()) % 5 != 0) continue;  // time; the others see all
#endif
    for (const bool most : {false, true}) {
      if (is_too_much(spec, most)) continue;
      const std::string word = spec.key + "=" + value_of(spec, most);
      bool tried = false, told = false;
      for (Base& base : all) {
        const std::string fault = fault_of(base, {word});
        EXPECT_EQ(fault.find("expected " + expectation(spec) + ", found"), std::string::npos)
            << fault;
        if (!fault.empty()) {
          told |= fault.find("does not read it") == std::string::npos;
          continue;
        }
        add(base, word, is_wild(spec) ? &base.wild_runs : &base.runs);
        tried = true;
        break;
      }
      ++count;
      if (!tried && !told) untried.insert(word);
    }
  }
#if !defined(RETORT_SANITIZED)
  EXPECT_GT(count, 150);
#endif
  for (const std::string& word : untried) ADD_FAILURE() << word << " was tried nowhere";
  int number = 0;
  for (const Base& base : all)
    for (const auto* runs : {&base.runs, &base.wild_runs})
      for (const std::vector<std::string>& words : *runs) {
        std::vector<std::string> args{"run", write(base.name + ".toml", base.text)};
        std::string shown;
        for (const std::string& word : words) shown += word + " ";
        args.insert(args.end(), words.begin(), words.end());
        args.insert(args.end(),
                    {"--device", "cpu", "--threads", "2", "--out", "x" + std::to_string(++number)});
        const Result r = run(args);
        EXPECT_TRUE(r.status == 0 || (r.status == 6 && runs == &base.wild_runs))
            << r.status << " " << base.name << ": " << shown << "\n"
            << r.err;
      }
}

}  // namespace
}  // namespace retort::tools
