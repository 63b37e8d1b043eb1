// What only several keys of a recipe together can get wrong.
#include <algorithm>
#include <set>

#include "tools/kdtrain/recipe_parts.h"

namespace retort::tools {

void check_together(RecipeResult* result) {
  const Recipe& recipe = result->recipe;
  struct Mistake {
    std::string where, arm, text;
  };
  std::vector<Mistake> mistakes;
  const auto wrong = [&](const Settings& s, const std::string& arm, const std::string& key,
                         std::string message) {
    const std::string where = s.origin(key);
    mistakes.push_back({where == "default" ? recipe.source : where, arm, key + ": " + message});
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
    if (s.flag(section + ".nesterov") &&
        (s.number(section + ".momentum") == 0 || s.text(section + ".optimizer") != "sgd"))
      wrong(s, arm, section + ".nesterov", "needs SGD with momentum > 0");
  };
  bool needs_teacher = false;
  for (const Arm& arm : recipe.arms) {
    const Settings& s = arm.settings;
    needs_teacher |= uses_teacher(s);
    check_training(s, arm.name, "train");
    if ((s.text("student.arch") == "mlp") != parity)
      wrong(s, arm.name, "student.arch", parity ? "parity needs an mlp" : "images need a resnet");
    const bool curriculum = s.text("train.order") == "curriculum";
    if (curriculum && parity)
      wrong(s, arm.name, "train.order", "parity draws fresh samples: there is nothing to order");
    if (s.text("distill.reliance.mode") != "off" && !curriculum)
      wrong(s, arm.name, "distill.reliance.mode",
            "selective reliance needs train.order = \"curriculum\"");
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
