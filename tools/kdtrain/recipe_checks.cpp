// What only several keys of a recipe together can get wrong.
#include <algorithm>
#include <map>
#include <set>

#include "tools/kdtrain/recipe_parts.h"

namespace retort::tools {
namespace {

// What decides an order and its scores: curricula of one name must not differ in it, or an arm
// would be fed another one's.
std::string curriculum_of(const Settings& s) {
  const bool random = s.text("curriculum.scorer") == "random";
  std::string all = s.text("curriculum.scorer") + " " + s.text("curriculum.score");
  all += s.flag("curriculum.stratify") ? " stratified " : " ";
  return all + (random ? "" : s.text("curriculum.inverse"));
}

}  // namespace

void check_together(RecipeResult* result) {
  const Recipe& recipe = result->recipe;
  struct Mistake {
    std::string where, arm, text;
  };
  std::vector<Mistake> mistakes;
  const auto wrong = [&](const Settings& s, const std::string& arm, const std::string& key,
                         std::string message) {
    mistakes.push_back({recipe.place(s, key), arm, key + ": " + message});
  };
  const Settings& base = recipe.base;
  const bool parity = base.text("data.format") == "parity";
  if (parity && base.integer("data.support") > base.integer("data.bits"))
    wrong(base, "", "data.support",
          "expected at most data.bits = " + std::to_string(base.integer("data.bits")));
  std::set<std::int64_t> seeds;
  for (const std::int64_t seed : base.integers("seeds"))
    if (!seeds.insert(seed).second)
      wrong(base, "", "seeds", "seed " + std::to_string(seed) + " is there twice");
  if (base.integers("seeds").empty()) wrong(base, "", "seeds", "expected at least one seed");
  if (base.integers("teacher.seeds").empty())
    wrong(base, "", "teacher.seeds", "expected at least one seed");
  if (base.integers("teacher.seeds").size() > 1 && !base.text("teacher.weights").empty())
    wrong(base, "", "teacher.seeds", "teacher.weights is one teacher: expected one seed");
  if (base.integers("teacher.seeds").size() > 1)
    for (const std::int64_t seed : base.integers("seeds"))
      if (seed >= 100)
        wrong(base, "", "seeds", "expected seeds below 100 with several teacher seeds");
  if ((base.text("teacher.arch") == "mlp") != parity)
    wrong(base, "", "teacher.arch", parity ? "parity needs an mlp" : "images need a resnet");
  const auto check_training = [&](const Settings& s, const std::string& arm,
                                  const std::string& section) {
    if ((s.integer(section + ".epochs") > 0) == (s.integer(section + ".steps") > 0))
      wrong(s, arm, section + ".epochs",
            "expected exactly one of " + section + ".epochs and " + section + ".steps to be > 0");
    const auto& milestones = s.numbers(section + ".milestones");
    if (!std::is_sorted(milestones.begin(), milestones.end()))
      wrong(s, arm, section + ".milestones", "expected ascending fractions");
    if (section == "teacher.train" && s.text("teacher.train.order") == "curriculum")
      wrong(s, arm, "teacher.train.order", "a curriculum is made by a trained teacher");
    if (s.flag(section + ".nesterov") &&
        (s.number(section + ".momentum") == 0 || s.text(section + ".optimizer") != "sgd"))
      wrong(s, arm, section + ".nesterov", "needs SGD with momentum > 0");
  };
  const auto check_hidden = [&](const Settings& s, const std::string& arm,
                                const std::string& section) {
    if (s.text(section + ".arch") == "mlp" && s.integers(section + ".hidden").empty())
      wrong(s, arm, section + ".hidden", "expected at least one hidden layer");
  };
  // The names of nn/models/registry.cpp that option A does not belong to.
  const auto check_shortcut = [&](const Settings& s, const std::string& arm,
                                  const std::string& section) {
    const std::string& arch = s.text(section + ".arch");
    for (const char* net : {"resnet18", "resnet34", "resnet50", "resnet101", "resnet152"})
      if ((arch == net || arch == std::string(net) + "_cifar") &&
          s.text(section + ".shortcut") == "A")
        wrong(s, arm, section + ".shortcut", "A belongs to the CIFAR nets, not to " + arch);
  };
  check_shortcut(base, "", "teacher");
  check_hidden(base, "", "teacher");
  bool needs_teacher = false;
  std::map<std::string, std::string> curricula;  // by name
  const auto check_curriculum = [&](const Settings& s, const std::string& arm) {
    const std::string name = curriculum_name(s);
    if (!valid_name(name))
      wrong(s, arm, "curriculum.name", "expected " + std::string(kNameRule));
    else if (curricula.emplace(name, curriculum_of(s)).first->second != curriculum_of(s))
      wrong(s, arm, "curriculum.name",
            "a curriculum of other settings is called '" + name + "' too");
    if (s.text("distill.reliance.mode") == "literal" && s.text("curriculum.score") == "logprob")
      wrong(s, arm, "distill.reliance.mode",
            "literal divides by the largest score, and no log-probability is above 0: use minmax "
            "or rank, or another curriculum.score");
    const std::string& pacing = s.text("curriculum.pacing");
    if (pacing == "none") return;
    if (s.integer("train.window_shuffle") > 0)
      wrong(s, arm, "train.window_shuffle",
            "pacing draws every batch at random: there is nothing to shuffle");
    if (!pacing.ends_with("_exponential") && pacing != "single_step") return;
    const std::size_t lengths = s.integers("curriculum.pacing_steps").size();
    if (lengths == 0 || (lengths > 1 && pacing != "varied_exponential"))
      wrong(s, arm, "curriculum.pacing_steps",
            std::string(lengths == 0 ? "expected at least one length" : "expected one length") +
                " for pacing = \"" + pacing + "\", got " + std::to_string(lengths));
    if (pacing != "single_step" && !(s.number("curriculum.increase") > 1))
      wrong(s, arm, "curriculum.increase", "expected more than 1 for pacing = \"" + pacing + "\"");
  };
  if (base.number("teacher.train.split") > 0 && !base.texts("teacher.train.files").empty())
    wrong(base, "", "teacher.train.split",
          "a split of data.train_files and teacher.train.files exclude each other");
  for (const Arm& arm : recipe.arms) {
    const Settings& s = arm.settings;
    needs_teacher |= uses_teacher(s);
    check_training(s, arm.name, "train");
    check_shortcut(s, arm.name, "student");
    check_hidden(s, arm.name, "student");
    if ((s.text("student.arch") == "mlp") != parity)
      wrong(s, arm.name, "student.arch", parity ? "parity needs an mlp" : "images need a resnet");
    const bool curriculum = s.text("train.order") == "curriculum";
    if (curriculum && parity)
      wrong(s, arm.name, "train.order", "parity draws fresh samples: there is nothing to order");
    if (s.text("distill.reliance.mode") != "off" && !curriculum)
      wrong(s, arm.name, "distill.reliance.mode",
            "selective reliance needs train.order = \"curriculum\"");
    if (curriculum) check_curriculum(s, arm.name);
    if (s.text("curriculum.pacing") != "none" && !curriculum)
      wrong(s, arm.name, "curriculum.pacing", "pacing needs train.order = \"curriculum\"");
    if (s.integer("train.window_shuffle") > 0 && s.text("train.order") == "shuffle")
      wrong(s, arm.name, "train.window_shuffle",
            "train.order = \"shuffle\" shuffles everything already");
    if (s.text("distill.method") == "progressive" &&
        (base.integer("teacher.train.checkpoint_steps") == 0 ||
         !base.text("teacher.weights").empty()))
      wrong(s, arm.name, "distill.method",
            "progressive needs a teacher trained by the recipe with "
            "teacher.train.checkpoint_steps > 0");
  }
  if (needs_teacher && base.text("teacher.weights").empty())
    check_training(base, "", "teacher.train");

  // What every arm has is one mistake, not one for each.
  const auto same = [](const Mistake& a, const Mistake& b) {
    return a.where == b.where && a.text == b.text;
  };
  for (std::size_t i = 0; i < mistakes.size(); ++i) {
    const Mistake& m = mistakes[i];
    const auto of_all = static_cast<std::size_t>(std::count_if(
        mistakes.begin(), mistakes.end(), [&](const Mistake& other) { return same(m, other); }));
    const bool shared = of_all > 1 && of_all == recipe.arms.size();
    const auto first = std::find_if(mistakes.begin(), mistakes.end(),
                                    [&](const Mistake& other) { return same(m, other); });
    if (shared && first != mistakes.begin() + static_cast<std::ptrdiff_t>(i)) continue;
    const bool named = !m.arm.empty() && !shared;
    result->problems.push_back({m.where, {}, (named ? "arm '" + m.arm + "': " : "") + m.text, ""});
  }
}

}  // namespace retort::tools
