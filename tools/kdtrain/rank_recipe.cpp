#include "tools/kdtrain/rank_recipe.h"

#include <algorithm>

#include "nn/optim/rank_exchange.h"
#include "tools/kdtrain/jobs.h"
#include "tools/kdtrain/recipe_identity.h"
#include "tools/kdtrain/schema.h"
#include "tools/kdtrain/training_settings.h"

namespace retort::tools {
namespace {

constexpr const char* kKeys[] = {"train.slices", "teacher.train.slices"};

template <class T>
const Settings* settings_named(const std::vector<T>& all, const std::string& name) {
  const auto at =
      std::find_if(all.begin(), all.end(), [&](const T& one) { return one.name == name; });
  return at == all.end() ? nullptr : &at->settings;
}

void check(const Recipe& recipe, const Settings& s, const std::string& section, int ranks) {
  try {
    nn::RankExchange::check_ranks(slices_of(s, section), ranks);
  } catch (const Error& error) {
    fail(error.code(), recipe.place(s, section + ".slices"), ": ", section, ".", error.what());
  }
}

}  // namespace

void settle_slices(Recipe* recipe, const std::string& saved, int ranks) {
  const RecipeResult before = parse_recipe("recipe.resolved.toml", saved, {});
  const bool resumes = !saved.empty() && before.problems.empty();
  const auto settle = [&](Settings& s, const Settings* had) {
    for (const char* key : kKeys) {
      if (s.integer(key) != 0) continue;
      if (resumes) {
        const std::int64_t began = (had == nullptr ? before.recipe.base : *had).integer(key);
        if (began != 0) s.set(key, began, "as the run began");
      } else if (ranks > 1) {
        s.set(key, std::int64_t{ranks}, "as many as ranks");
      }
    }
  };
  settle(recipe->base, nullptr);
  for (Arm& arm : recipe->arms) settle(arm.settings, settings_named(before.recipe.arms, arm.name));
  for (ModelSpec& model : recipe->models)
    settle(model.settings, settings_named(before.recipe.models, model.name));
}

void check_ranks(const JobList& jobs, int ranks) {
  for (const SourceModel& model : jobs.models())
    if (!model.given) check(jobs.recipe(), *model.settings, model.training(), ranks);
  for (const Arm& arm : jobs.recipe().arms) check(jobs.recipe(), arm.settings, "train", ranks);
}

void check_rank_device(Device device, int ranks) {
  RETORT_CHECK(device == Device::kCpu, ranks,
               " ranks train on the CPU so far: expected --device cpu");
}

void add_recipe(const Recipe& recipe, Handshake* handshake) {
  const auto add = [&](const Settings& s, const std::string& whose) {
    for (const KeySpec& spec : schema())
      handshake->add(whose + spec.key, to_toml(s.value(spec.key)));
  };
  const auto add_own = [&](const std::vector<Assignment>& in_tasks, const std::string& whose) {
    for (const Assignment& own : in_tasks)
      handshake->add(whose + "task." + own.task + "." + own.key, to_toml(own.value));
  };
  add(recipe.base, "");
  for (const Arm& arm : recipe.arms) {
    add(arm.settings, "arm." + arm.name + ".");
    add_own(arm.in_tasks, "arm." + arm.name + ".");
    handshake->add("arm." + arm.name + ".teachers", to_toml(arm.teachers));
  }
  for (const ModelSpec& model : recipe.models) {
    add(model.settings, "model." + model.name + ".");
    add_own(model.in_tasks, "model." + model.name + ".");
    handshake->add("model." + model.name + ".teachers", to_toml(model.teachers));
  }
  for (const TaskSpec& task : recipe.tasks)
    add(in_task(recipe.base, task), "task." + task.name + ".");
  for (const auto& [file, hash] : hashes_of_files(recipe))
    handshake->add("content of " + file, hash);
}

}  // namespace retort::tools
