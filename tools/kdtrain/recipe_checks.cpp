// What only several keys of a recipe together can get wrong. Each check is of one matter.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <set>

#include "curriculum/options.h"
#include "distill/losses/divergence.h"
#include "distill/metrics/metric.h"
#include "nn/data/registry.h"
#include "tools/kdtrain/curricula.h"
#include "tools/kdtrain/extensions.h"
#include "tools/kdtrain/recipe_parts.h"
#include "tools/kdtrain/schema_parts.h"
#include "tools/kdtrain/sweep_ranges.h"

namespace retort::tools {

std::vector<Use> uses_of(const Recipe& recipe) {
  std::vector<Use> uses;
  const auto add = [&](const std::string& who, const auto& of) {
    if (recipe.tasks.empty()) uses.push_back({who, of.settings, of.owned, &of.teachers});
    for (const TaskSpec& task : recipe.tasks) {
      Use use{who + ", task '" + task.name + "'", in_task(of.settings, task, of.in_tasks), of.owned,
              &of.teachers};
      use.task = task.name;
      for (const Assignment& own : task.own) use.owned.push_back(own.key);
      for (const Assignment& own : of.in_tasks)
        if (own.task == task.name) use.owned.push_back(own.key);
      uses.push_back(std::move(use));
    }
  };
  for (const Arm& arm : recipe.arms) add("arm '" + arm.name + "'", arm);
  for (const ModelSpec& model : recipe.models) add("model '" + model.name + "'", model);
  return uses;
}

namespace {

// Lists whose entries name jobs or files of their own.
template <class T>
void check_twice(const std::string& key, const std::vector<T>& list, const char* what,
                 Mistakes* mistakes) {
  for (std::size_t i = 0; i < list.size(); ++i)
    if (std::find(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(i), list[i]) !=
        list.begin() + static_cast<std::ptrdiff_t>(i))
      mistakes->add(key, std::string(what) + to_toml(Value(list[i])) + " is there twice");
}

void check_lists(const Settings& base, Mistakes* mistakes) {
  check_twice("arms", base.texts("arms"), "", mistakes);
  for (const char* key : {"seeds", "teacher.seeds"})
    unless_refused([&] { check_twice(key, base.integers(key), "seed ", mistakes); });
}

// A file that is named twice counts twice, which nobody sees in the results.
void check_files_twice(const Use& use, Mistakes* mistakes) {
  for (const KeySpec& spec : schema()) {
    const bool lists_files = spec.key.starts_with("data.") && spec.key.ends_with("_files");
    if (!lists_files && spec.key != "teacher.train.files") continue;
    std::set<std::string> seen;
    for (const std::string& file : use.settings.texts(spec.key))
      if (!seen.insert(std::filesystem::path(file).lexically_normal().string()).second)
        mistakes->add(use, spec.key, to_toml(Value(shown(file))) + " is there twice");
  }
}

void check_seeds(const Settings& base, Mistakes* mistakes) {
  const auto& seeds = base.integers("seeds");
  const auto& teacher_seeds = base.integers("teacher.seeds");
  if (teacher_seeds.size() <= 1) return;
  if (!base.text("teacher.weights").empty())
    mistakes->add("teacher.seeds", "teacher.weights is one teacher: expected one seed");
  if (std::any_of(seeds.begin(), seeds.end(), [](std::int64_t seed) { return seed >= 100; }))
    mistakes->add("seeds", "expected seeds below 100 with several teacher seeds");
}

// What only `kdtrain sweep` reads is checked all the same: `validate` speaks for it too.
void check_ranges(const Settings& base, Mistakes* mistakes) {
  for (const std::string& line : base.texts("sweep.ranges")) try {
      parse_sweep_range(line);
    } catch (const Error& error) {
      const std::string what = error.what();
      mistakes->add("sweep.ranges", what.substr(what.find(": ") + 2));
    }
}

// `wrong(key, message)` says whose mistake it is.
template <class Wrong>
void check_training(const Settings& s, const std::string& section, const Wrong& wrong) {
  if ((s.integer(section + ".epochs") > 0) == (s.integer(section + ".steps") > 0))
    wrong(section + ".epochs",
          "expected exactly one of " + section + ".epochs and " + section + ".steps to be > 0");
  const auto& milestones = s.numbers(section + ".milestones");
  if (!std::is_sorted(milestones.begin(), milestones.end()))
    wrong(section + ".milestones", "expected ascending fractions");
  if (s.flag(section + ".nesterov") &&
      (s.number(section + ".momentum") == 0 || s.text(section + ".optimizer") != "sgd"))
    wrong(section + ".nesterov", "needs SGD with momentum > 0");
}

bool has_no_tokens(const Settings& s) {
  return nn::data_kinds().at(s.text("data.format")).gives != nn::Reads::kTokens;
}

void check_teacher(const Recipe& recipe, const std::vector<Use>& uses, Mistakes* mistakes) {
  const Settings& base = recipe.base;
  if (base.number("teacher.train.split") > 0 && !base.texts("teacher.train.files").empty())
    mistakes->add("teacher.train.split",
                  "a split of data.train_files and teacher.train.files exclude each other");
  if (base.text("teacher.train.order") == "curriculum")
    mistakes->add("teacher.train.order", "a curriculum is made by a trained teacher");
  const bool needed = std::any_of(uses.begin(), uses.end(), learns_from_teacher);
  if (!needed || !base.text("teacher.weights").empty()) return;
  const bool has_tasks = !recipe.tasks.empty();  // the first may set its own data
  if (base.integer("teacher.train.batch_tokens") > 0 && !has_tasks && has_no_tokens(base))
    mistakes->add("teacher.train.batch_tokens",
                  "data " + base.text("data.format") + " has no tokens: expected 0");
  check_training(base, "teacher.train", [&](const std::string& key, const std::string& message) {
    mistakes->add(key, message);
  });
}

// Tasks behind the first may train the teacher further.
void check_teacher_in_tasks(const Recipe& recipe, const std::vector<Use>& uses,
                            Mistakes* mistakes) {
  constexpr const char* kContinues = "teacher.train.continues";
  const Use base{"", recipe.base, {}, nullptr};
  const bool needed = std::any_of(uses.begin(), uses.end(), learns_from_teacher);
  if (recipe.base.flag(kContinues) && recipe.tasks.size() < 2)
    mistakes->add(base, kContinues, "needs a [[task]] behind another one");
  for (std::size_t i = 0; i < recipe.tasks.size(); ++i) {
    const TaskSpec& task = recipe.tasks[i];
    const Use use{"task '" + task.name + "'", in_task(recipe.base, task), {}, nullptr, task.name};
    const bool trains = i > 0 && use.settings.flag(kContinues);
    for (const Assignment& own : task.own) {
      if (!own.key.starts_with("teacher.train.")) continue;
      if (i == 0 && own.key == kContinues && use.settings.flag(kContinues))
        mistakes->add(use, own.key, "there is no task before it");
      if (i > 0 && !trains && own.key != kContinues)
        mistakes->add(use, own.key,
                      "the teacher does not train in this task: expected teacher.train.continues "
                      "= true");
    }
    if (trains && needed)
      check_training(use.settings, "teacher.train",
                     [&](const std::string& key, const std::string& message) {
                       mistakes->add(use, key, message);
                     });
  }
}

void check_stop(const Use& use, Mistakes* mistakes) {
  const std::string& rule = use.settings.text("train.stop_at");
  if (rule.empty()) return;
  const auto parsed = parse_stop_rule(rule);
  if (!parsed)
    mistakes->add(
        use, "train.stop_at",
        "expected a metric, >= or <=, and a number, such as \"accuracy >= 0.99\", found " +
            to_toml(Value(shown(rule))));
  else if (const auto* const kind = distill::find_metric(parsed->metric); !kind || !kind->of) {
    nn::Strings measured;
    for (const auto* const known : distill::metric_kinds())
      if (known->of) measured.push_back(known->name);
    const std::string near = nn::nearest_word(parsed->metric, measured);
    mistakes->add(use, "train.stop_at", "no metric '" + shown(parsed->metric) + "' is measured",
                  near.empty() ? "metrics: " + list_of(measured) : "did you mean '" + near + "'?");
  }
  if (use.settings.number("train.stop_at_accuracy") > 0)
    mistakes->add(use, "train.stop_at", "train.stop_at_accuracy is set too: expected one of them");
}

nn::Options curriculum_of(const Settings& s) {
  return options_of(s, "curriculum", curriculum_options());
}

bool paces(const Settings& s) {
  return curriculum::pacing_kinds().at(s.text("curriculum.pacing")).fraction != nullptr;
}

void check_order(const Use& use, Mistakes* mistakes) {
  const Settings& s = use.settings;
  const bool curriculum = s.text("train.order") == "curriculum";
  if (paces(s) && !curriculum)
    mistakes->add(use, "curriculum.pacing", "pacing needs train.order = \"curriculum\"");
  if (s.integer("train.window_shuffle") > 0 && s.text("train.order") == "shuffle")
    mistakes->add(use, "train.window_shuffle",
                  "train.order = \"shuffle\" shuffles everything already");
}

void check_batch_tokens(const Use& use, Mistakes* mistakes) {
  const Settings& s = use.settings;
  if (s.integer("train.batch_tokens") == 0) return;
  if (has_no_tokens(s))
    mistakes->add(use, "train.batch_tokens",
                  "data " + s.text("data.format") + " has no tokens: expected 0");
  const bool by_batch =
      s.text("distill.reliance.mode") != "off" && s.text("distill.reliance.per") == "batch";
  if (by_batch)
    mistakes->add(use, "train.batch_tokens",
                  "lambda by batch is made for batches of train.batch samples: expected 0, or "
                  "distill.reliance.per = \"sample\"");
  if (s.text("curriculum.pacing") != "none" || s.integer("train.window_shuffle") > 0)
    mistakes->add(use, "train.batch_tokens",
                  "pacing and windows are counted in batches of samples: expected 0");
}

// `named` is the signature of each curriculum name so far.
void check_curriculum(const Use& use, std::map<std::string, std::string>* named,
                      Mistakes* mistakes) {
  const Settings& s = use.settings;
  if (s.text("train.order") != "curriculum" && s.text("distill.reliance.mode") == "off") return;
  const std::string name = curriculum_name(s), signature = order_signature(s);
  const std::string as_file = use.task.empty() ? name : name + "_" + use.task;  // of each task
  if (!valid_name(name))
    mistakes->add(use, "curriculum.name",
                  "expected " + std::string(kNameRule) + ", found " + to_toml(Value(shown(name))));
  else if (named->emplace(as_file, signature).first->second != signature)
    mistakes->add(use, "curriculum.name",
                  "a curriculum of other settings is called '" + name + "' too");
  for (const curriculum::Mistake& wrong : curriculum::curriculum_mistakes(curriculum_of(s)))
    if (wrong.key != "file" || s.text("curriculum.file").empty())  // given and unread: check_unread
      mistakes->add(use, "curriculum." + wrong.key, wrong.message);
  if (paces(s) && s.integer("train.window_shuffle") > 0)
    mistakes->add(use, "train.window_shuffle",
                  "pacing draws every batch at random: there is nothing to shuffle");
  if (s.text("distill.reliance.mode") == "literal" && s.text("curriculum.score") == "logprob")
    mistakes->add(use, "distill.reliance.mode",
                  "literal divides by the largest score, and no log-probability is above 0: use "
                  "minmax or rank, or another curriculum.score");
}

void check_divergence(const Use& use, Mistakes* mistakes) {
  const double given = use.settings.number("distill.parameter");
  if (given == -1) return;
  const distill::DivergenceKind& kind =
      distill::divergence_kinds().at(use.settings.text("distill.divergence"));
  if (kind.facts().role == nullptr)
    mistakes->add(use, "distill.parameter", kind.names.front() + " has none: expected -1");
  else if (!kind.in_range(given))
    mistakes->add(
        use, "distill.parameter",
        "expected a number in " + kind.range() + " for " + kind.names.front() + ", or -1");
}

void check_progressive(const Recipe& recipe, const Use& use, Mistakes* mistakes) {
  if (use.settings.text("distill.method") != "progressive") return;
  const auto& accuracies = use.settings.numbers("distill.progressive.accuracies");
  if (std::set<double>(accuracies.begin(), accuracies.end()).size() < accuracies.size())
    mistakes->add(use, "distill.progressive.accuracies", "an accuracy is there twice");
  const auto& moments = use.settings.integers("distill.progressive.teacher_steps");
  for (std::size_t i = 1; i < moments.size(); ++i)
    if (moments[i - 1] >= moments[i]) {
      mistakes->add(use, "distill.progressive.teacher_steps", "expected ascending steps");
      break;
    }
  if (*use.teachers != Teachers{"teacher"})
    mistakes->add(use, "distill.method",
                  "progressive follows checkpoints of [teacher]: expected it to be the one to "
                  "learn from");
  const bool watched = recipe.base.integer("teacher.train.checkpoint_steps") > 0;
  if (!recipe.base.text("teacher.weights").empty() || (moments.empty() && !watched))
    mistakes->add(use, "distill.method",
                  "progressive needs a teacher trained by the recipe with "
                  "teacher.train.checkpoint_steps > 0");
}

void check_loss(const Use& use, Mistakes* mistakes) {
  const Settings& s = use.settings;
  if (s.text("distill.loss") == "seed_lambda") return;
  const std::string loss = s.text("distill.loss") + " has shares of its own";
  if (s.text("distill.reliance.mode") != "off")
    mistakes->add(use, "distill.reliance.mode", loss + ": expected \"off\"");
  if (const double cutoff = s.number("distill.cutoff"); cutoff != 0 && cutoff != 1)
    mistakes->add(use, "distill.cutoff", loss + ": expected 0");
  if (s.number("distill.cosine.weight") != 0)  // it would be a second term of the triple's name
    mistakes->add(use, "distill.cosine.weight", loss + ": expected 0");
}

void check_start(const Use& use, Mistakes* mistakes) {
  const Settings& s = use.settings;
  const std::string& from = s.text("student.init");
  const auto& layers = s.texts("student.init_layers");
  if (from.empty()) {
    if (!layers.empty())
      mistakes->add(use, "student.init_layers", "needs student.init = \"teacher\"");
    return;
  }
  if (std::find(use.teachers->begin(), use.teachers->end(), from) == use.teachers->end())
    mistakes->add(use, "student.init", "it learns from no '" + shown(from) + "'",
                  "its teachers: " + list_of(*use.teachers));
  if (!s.text("student.weights").empty())
    mistakes->add(use, "student.init", "student.weights is set too: expected one of them");
  for (const std::string& layer : layers)
    if (std::count(layer.begin(), layer.end(), '=') != 1)
      mistakes->add(
          use, "student.init_layers",
          "expected \"student_prefix=teacher_prefix\", found " + to_toml(Value(shown(layer))));
}

// Who scores with scorer = "models": models of the recipe, none of them twice.
void check_scorers(const Recipe& recipe, const Use& use, Mistakes* mistakes) {
  const Settings& s = use.settings;
  if (!has_curriculum(s) || s.text("curriculum.scorer") != kScorerModels) return;
  const auto& names = s.texts("curriculum.models");
  if (use.who.starts_with("model"))
    mistakes->add(use, "curriculum.scorer",
                  "a [[model]] is scored for by its teacher or by itself: expected \"teacher\" or "
                  "\"student\"");
  else if (names.empty())
    mistakes->add(use, "curriculum.scorer", "\"models\" needs curriculum.models = [\"name\", ...]");
  std::vector<std::string> known{"teacher"};
  for (const ModelSpec& model : recipe.models) known.push_back(model.name);
  for (const std::string& name : names)
    if (std::find(known.begin(), known.end(), name) == known.end())
      mistakes->add(use, "curriculum.models", "there is no model '" + shown(name) + "'",
                    "models: " + list_of(known));
  if (std::set<std::string>(names.begin(), names.end()).size() < names.size())
    mistakes->add(use, "curriculum.models", "a model is named twice");
}

// Tasks after the first go on with the weights of the one before.
void check_later_task(const Use& use, const Use& first, Mistakes* mistakes) {
  for (const char* key : {"student.weights", "student.init", "student.init_layers"})
    if (use.settings.value(key) != first.settings.value(key))
      mistakes->add(use, key,
                    "a task after the first goes on with the weights of the one before: expected "
                    "it to be as in the first");
}

}  // namespace

bool learns_from_teacher(const Use& use) {
  return uses_teacher(use.settings) &&
         std::find(use.teachers->begin(), use.teachers->end(), "teacher") != use.teachers->end();
}

void check_unread(const std::vector<Use>& uses, const std::string& key,
                  const std::function<std::string(const Use&)>& why_not, Mistakes* mistakes) {
  const KeySpec& spec = *find_key(key);
  std::set<std::string> read;  // places of values that somebody reads
  unless_refused([&] {
    for (const Use& use : uses)
      if (why_not(use).empty()) read.insert(use.settings.origin(key));
    for (const Use& use : uses) {
      const Value& value = use.settings.value(key);
      const std::string origin = use.settings.origin(key);
      const bool of_a_folder = origin.find("recipe.resolved.toml:") != std::string::npos;
      const bool asks = !use.settings.is_default(key) &&
                        value != spec.neutral.value_or(spec.fallback) &&
                        (value != spec.fallback || !of_a_folder);
      if (asks && !read.contains(use.settings.origin(key))) mistakes->add(use, key, why_not(use));
    }
  });
}

void Mistakes::add(const std::string& key, const std::string& message, std::string hint) {
  all_.push_back({recipe_.place(recipe_.base, key), key + ": " + message, std::move(hint), {}});
}

void Mistakes::add(const Use& use, const std::string& key, const std::string& message,
                   std::string hint) {
  const std::string where = recipe_.place(use.settings, key), text = key + ": " + message;
  const auto same = std::find_if(all_.begin(), all_.end(), [&](const Mistake& m) {
    return m.where == where && m.text == text;
  });
  Mistake& mistake =
      same == all_.end() ? all_.emplace_back(Mistake{where, text, std::move(hint), {}}) : *same;
  if (!use.who.empty()) mistake.who.push_back(use.who);
}

// "FILE:LINE:COLUMN" in parts; the rest as it is.
RecipeProblem Mistakes::at(const std::string& where) const {
  Place place;
  const std::string file = recipe_.source + ":";
  if (where.starts_with(file) &&
      std::sscanf(where.c_str() + file.size(), "%d:%d", &place.line, &place.column) == 2)
    return {recipe_.source, place, "", ""};
  return {where, {}, "", ""};
}

std::vector<RecipeProblem> Mistakes::take(std::size_t uses) const {
  std::vector<RecipeProblem> problems;
  for (const Mistake& m : all_) {
    const bool shared = uses > 1 && m.who.size() == uses;
    const std::string who = shared || m.who.empty() ? "" : list_of(m.who) + ": ";
    RecipeProblem problem = at(m.where);
    problem.message = who + m.text;
    problem.hint = m.hint;
    problems.push_back(std::move(problem));
  }
  return problems;
}

void check_libraries(RecipeResult* result) {
  const nn::Strings& wanted = result->recipe.base.texts("libraries");
  const nn::Strings& loaded = loaded_extensions();
  if (wanted.empty() || wanted == loaded) return;
  Mistakes mistakes(result->recipe);
  mistakes.add("libraries", "the recipe wants " + shown(list_of(wanted)) + ", but --load gave " +
                                shown(list_of(loaded)));
  for (RecipeProblem& problem : mistakes.take(1)) result->problems.push_back(std::move(problem));
}

void check_together(RecipeResult* result) {
  const Recipe& recipe = result->recipe;
  const std::vector<Use> uses = uses_of(recipe);
  Mistakes mistakes(recipe);
  unless_refused([&] { check_lists(recipe.base, &mistakes); });
  unless_refused([&] { check_seeds(recipe.base, &mistakes); });
  unless_refused([&] { check_ranges(recipe.base, &mistakes); });
  unless_refused([&] { check_teacher(recipe, uses, &mistakes); });
  unless_refused([&] { check_teacher_in_tasks(recipe, uses, &mistakes); });
  std::map<std::string, std::string> curricula;
  for (const Use& use : uses) {
    unless_refused([&] {
      check_training(use.settings, "train",
                     [&](const std::string& key, const std::string& message) {
                       mistakes.add(use, key, message);
                     });
    });
    for (const auto check : {check_files_twice, check_stop, check_order, check_batch_tokens,
                             check_divergence, check_loss, check_start})
      unless_refused([&] { check(use, &mistakes); });
    unless_refused([&] { check_curriculum(use, &curricula, &mistakes); });
    unless_refused([&] { check_progressive(recipe, use, &mistakes); });
    unless_refused([&] { check_scorers(recipe, use, &mistakes); });
  }
  const std::size_t tasks = std::max<std::size_t>(1, recipe.tasks.size());
  for (std::size_t i = 0; i < uses.size(); ++i)
    if (i % tasks != 0)
      unless_refused([&] { check_later_task(uses[i], uses[i - i % tasks], &mistakes); });
  check_unread(
      uses, "curriculum.file",
      [](const Use& use) {
        return use.settings.text("curriculum.scorer") == "file"
                   ? std::string()
                   : "is read with curriculum.scorer = \"file\" only";
      },
      &mistakes);
  check_unread(
      uses, "curriculum.models",
      [](const Use& use) {
        return has_curriculum(use.settings) &&
                       use.settings.text("curriculum.scorer") == kScorerModels
                   ? std::string()
                   : "is read with curriculum.scorer = \"models\" only";
      },
      &mistakes);
  check_unread(
      uses, "curriculum.rescore_epochs",
      [](const Use& use) {
        return has_curriculum(use.settings) &&
                       use.settings.text("curriculum.scorer") == kScorerStudent
                   ? std::string()
                   : "is read with train.order = \"curriculum\" and curriculum.scorer = "
                     "\"student\" only";
      },
      &mistakes);
  check_fit(uses, &mistakes);
  for (RecipeProblem& problem : mistakes.take(uses.size()))
    result->problems.push_back(std::move(problem));
}

}  // namespace retort::tools
