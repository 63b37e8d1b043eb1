#include "tools/kdtrain/jobs.h"

#include <algorithm>
#include <cstdio>
#include <optional>

#include "distill/losses/divergence.h"
#include "engine/runtime/device.h"
#include "kernels/common/parallel.h"
#include "tools/kdtrain/models.h"
#include "tools/kdtrain/training_settings.h"

namespace retort::tools {
namespace {

// Adds the teachers of the stages to the plan.
std::vector<distill::Stage> stages_of(const Settings& s, const TrainingPlan& plan,
                                      const TeacherSet& set, const nn::DataFacts& data,
                                      std::vector<std::shared_ptr<distill::Teacher>>* teachers) {
  const distill::Terms terms = terms_of(s, plan.key);
  const std::string& method = s.text("distill.method");
  if (method == "progressive") {
    std::vector<distill::ProgressivePart> parts;
    for (const SnapshotRule& rule : snapshots_of(s)) {
      parts.push_back({teachers->size(), s.integer("distill.progressive.steps")});
      teachers->push_back(set.snapshots.at(rule.name()));
    }
    return distill::progressive_stages(parts, 0, s.flag("distill.progressive.fresh_optimizer"),
                                       terms);
  }
  if (method != "extraction") return distill::one_shot_stages(0, terms);
  distill::ExtractionOptions options;
  options.variant = distill::parse_projection_variant(s.text("distill.extraction.variant"));
  options.width = s.integer("distill.extraction.width");
  options.until.steps = s.integer("distill.extraction.steps");
  options.until.window = s.integer("distill.extraction.window");
  options.until.min_improvement = s.number("distill.extraction.min_improvement");
  options.centre = s.flag("distill.extraction.centre");
  options.scale = s.flag("distill.extraction.scale");
  const std::int64_t seed = s.integer("distill.extraction.seed");
  options.seed = derive_key(seed != 0 ? seed : plan.seed, "projection");
  if (uses_untrained_teacher(s)) {
    options.projection_teacher = teachers->size();
    teachers->push_back(set.untrained);
  }
  return distill::extraction_stages(hidden_layers(s, "student", data), options, terms);
}

const ModelSpec& model_named(const Recipe& recipe, const std::string& name) {
  const auto spec = std::find_if(recipe.models.begin(), recipe.models.end(),
                                 [&](const ModelSpec& m) { return m.name == name; });
  RETORT_CHECK(spec != recipe.models.end(), "[recipe] there is no model '", name, "'");
  return *spec;
}

// What the arms learn from, and what that learns from, by name.
std::vector<std::string> models_needed(const Recipe& recipe) {
  std::vector<std::string> names;
  const auto add_named = [&](const auto& add, const std::string& name) {
    if (std::find(names.begin(), names.end(), name) != names.end()) return;
    if (name != "teacher") {
      const ModelSpec& model = model_named(recipe, name);
      add(add, model.settings, model.teachers);
    }
    names.push_back(name);
  };
  const auto add = [&](const auto& again, const Settings& s, const Teachers& teachers) -> void {
    if (uses_teacher(s)) add_named(again, teachers.at(0));
  };
  for (const Arm& arm : recipe.arms) add(add, arm.settings, arm.teachers);
  for (const Arm& arm : recipe.arms)
    for (const std::string& name : scoring_models(arm.settings)) add_named(add, name);
  return names;
}

// The settings of the arms that learn from a model, and of the models that arms need.
std::vector<const Settings*> learners_in(const Recipe& recipe, const std::string& name) {
  std::vector<const Settings*> learners;
  const auto add = [&](const Settings& s, const Teachers& teachers) {
    if (uses_teacher(s) && teachers.at(0) == name) learners.push_back(&s);
  };
  for (const Arm& arm : recipe.arms) add(arm.settings, arm.teachers);
  for (const std::string& needed : models_needed(recipe)) {
    if (needed == "teacher") continue;
    const ModelSpec& model = model_named(recipe, needed);
    add(model.settings, model.teachers);
  }
  return learners;
}

// Where the first arm that asks for this teacher says so.
std::string place_of_teacher_step(const Recipe& recipe, std::int64_t step) {
  const std::string key = "distill.progressive.teacher_steps";
  for (const Arm& arm : recipe.arms) {
    const auto& moments = arm.settings.integers(key);
    if (std::find(moments.begin(), moments.end(), step) != moments.end())
      return recipe.place(arm.settings, key) + ": arm '" + arm.name + "': " + key;
  }
  return recipe.source + ": " + key;
}

}  // namespace

bool uses_untrained_teacher(const Settings& settings) {
  return settings.text("distill.method") == "extraction" &&
         settings.text("distill.extraction.teacher") == "untrained";
}

std::vector<SnapshotRule> snapshots_of(const Settings& settings) {
  std::vector<SnapshotRule> rules;
  if (settings.text("distill.method") != "progressive") return rules;
  for (const std::int64_t step : settings.integers("distill.progressive.teacher_steps"))
    rules.push_back({.step = step});
  if (!rules.empty()) return rules;
  for (const double accuracy : settings.numbers("distill.progressive.accuracies"))
    rules.push_back({.accuracy_above = accuracy});
  return rules;
}

std::vector<Recipe> recipes_in_tasks(const Recipe& recipe) {
  std::vector<Recipe> all(std::max<std::size_t>(1, recipe.tasks.size()), recipe);
  for (std::size_t i = 0; i < recipe.tasks.size(); ++i) {
    // Tasks behind the first go on with weights that are there: they need nobody to start from.
    const auto settings_of = [&](const Settings& settings, std::span<const Assignment> in_tasks) {
      Settings own = in_task(settings, recipe.tasks[i], in_tasks);
      if (i > 0) own.set("student.init", std::string(), own.origin("student.init"));
      return own;
    };
    all[i].base = settings_of(recipe.base, {});
    for (Arm& arm : all[i].arms) arm.settings = settings_of(arm.settings, arm.in_tasks);
    for (ModelSpec& model : all[i].models)
      model.settings = settings_of(model.settings, model.in_tasks);
  }
  return all;
}

Device chosen_device(const std::string& name) {
  const Device device = parse_device(name);
  if (name == "auto" && !cuda_plugin_problem().empty())
    std::fprintf(stderr, "kdtrain: note: %s; the CPU is used\n", cuda_plugin_problem().c_str());
  return device;
}

Device open_device(const std::string& name, const Settings& settings) {
  if (name == "auto" &&
      nn::data_kinds().at(settings.text("data.format")).gives == nn::Reads::kFeatures)
    return Device::kCpu;
  const Device device = chosen_device(name);
  if (device == Device::kCuda) set_allow_tf32(settings.flag("train.tf32"));
  return device;
}

JobList::JobList(std::span<const Recipe> recipes, std::size_t task)
    : recipe_(recipes[task]),
      later_(recipes.subspan(task + 1)),
      first_(task == 0),
      task_(recipe_.tasks.empty() ? "" : recipe_.tasks[task].name) {
  teacher_seeds_ = recipe_.base.integers("teacher.seeds");
  std::vector<std::size_t> of_arm;
  for (const Arm& arm : recipe_.arms)
    of_arm.push_back(uses_teacher(arm.settings) ? add_model(arm.teachers.at(0))
                                                : SourceModel::kNothing);
  for (const Recipe& later : later_)
    for (const std::string& name : models_needed(later))
      if (first_ || name != "teacher" || teacher_continues()) add_model(name);
  // An arm that learns from nobody is compared with the last model of the chain all the same.
  const std::size_t judge = models_.empty() ? SourceModel::kNothing : models_.size() - 1;
  for (const Arm& arm : recipe_.arms)
    for (const std::string& name : scoring_models(arm.settings)) add_model(name);
  if (std::all_of(models_.begin(), models_.end(), [](const SourceModel& m) { return m.given; }))
    teacher_seeds_.resize(1);
  for (std::size_t a = 0; a < recipe_.arms.size(); ++a)
    for (std::size_t t = 0; t < teacher_seeds_.size(); ++t)
      for (const std::int64_t seed : recipe_.base.integers("seeds"))
        students_.push_back({&recipe_.arms[a], of_arm[a],
                             of_arm[a] == SourceModel::kNothing ? judge : of_arm[a], t, seed,
                             several_teachers() ? 100 * teacher_seeds_[t] + seed : seed});
}

bool JobList::trains_teacher() const {
  return std::any_of(models_.begin(), models_.end(),
                     [](const SourceModel& m) { return m.is_teacher && m.trained; });
}

bool JobList::teacher_continues() const {
  return !first_ && recipe_.base.flag("teacher.train.continues");
}

// The index of a model, added with what it learns from if it is not there yet.
std::size_t JobList::add_model(const std::string& name) {
  for (std::size_t i = 0; i < models_.size(); ++i)
    if (models_[i].name == name) return i;
  SourceModel model;
  model.name = name;
  if (name == "teacher") {
    model.is_teacher = true;
    model.settings = &recipe_.base;
    model.given = !recipe_.base.text("teacher.weights").empty() && !teacher_continues();
    model.trained = !model.given && (first_ || teacher_continues());
  } else {
    const ModelSpec& spec = model_named(recipe_, name);
    model.settings = &spec.settings;
    if (uses_teacher(spec.settings)) model.learns_from = add_model(spec.teachers.at(0));
  }
  models_.push_back(std::move(model));
  return models_.size() - 1;
}

// The settings of all who learn from a model.
std::vector<const Settings*> JobList::learners_of(std::size_t model) const {
  std::vector<const Settings*> learners;
  for (const SourceModel& other : models_)
    if (other.learns_from == model) learners.push_back(other.settings);
  for (const StudentJob& job : students_)
    if (job.model == model) learners.push_back(&job.arm->settings);
  return learners;
}

std::vector<SnapshotRule> JobList::snapshots_of(std::size_t model) const {
  std::vector<SnapshotRule> all;
  std::vector<const Settings*> learners = learners_of(model);
  if (models_[model].is_teacher && models_[model].trained)
    for (const Recipe& later : later_) {
      if (later.base.flag("teacher.train.continues")) break;  // it keeps its own
      for (const Settings* s : learners_in(later, models_[model].name)) learners.push_back(s);
    }
  for (const Settings* s : learners)
    for (const SnapshotRule& rule : tools::snapshots_of(*s))
      if (std::find(all.begin(), all.end(), rule) == all.end()) all.push_back(rule);
  std::sort(all.begin(), all.end(), [](const SnapshotRule& a, const SnapshotRule& b) {
    return std::pair(a.accuracy_above, a.step) < std::pair(b.accuracy_above, b.step);
  });
  return all;
}

std::vector<const Settings*> JobList::scored_by(std::size_t model) const {
  std::vector<const Settings*> all;
  for (const Settings* s : learners_of(model))
    if (wants_teacher_scores(*s)) all.push_back(s);
  for (const Arm& arm : recipe_.arms) {
    const std::vector<std::string> names = scoring_models(arm.settings);
    if (std::find(names.begin(), names.end(), models_[model].name) != names.end())
      all.push_back(&arm.settings);
  }
  return all;
}

bool JobList::wants_scores_of(std::size_t model) const { return !scored_by(model).empty(); }

Maskings JobList::maskings_of(std::size_t model) const {
  std::optional<Maskings> most;
  for (const Settings* s : scored_by(model)) {
    const Maskings own = tools::maskings_of(*s);
    RETORT_CHECK(!most || most->in_turn == own.in_turn, recipe_.place(*s, "curriculum.masks"),
                 ": curriculum.masks: '", models_[model].name,
                 "' scores for several: expected the same in all of them");
    most = {std::max(most ? most->count : 1, own.count), own.in_turn};
  }
  return most.value_or(Maskings{});
}

std::vector<std::size_t> JobList::scorers_of(const Settings& settings) const {
  std::vector<std::size_t> all;
  for (const std::string& name : scoring_models(settings))
    for (std::size_t m = 0; m < models_.size(); ++m)
      if (models_[m].name == name) all.push_back(m);
  return all;
}

bool JobList::wants_untrained(std::size_t model) const {
  const auto learners = learners_of(model);
  return std::any_of(learners.begin(), learners.end(),
                     [](const Settings* s) { return uses_untrained_teacher(*s); });
}

bool JobList::all_allow_untrained(std::size_t model) const {
  const auto learners = learners_of(model);
  return std::all_of(learners.begin(), learners.end(),
                     [](const Settings* s) { return s->flag("teacher.allow_untrained"); });
}

void JobList::check_batch(const Settings& s, const std::string& who, const std::string& section,
                          const nn::DataFacts& data) const {
  if (s.integer(section + ".batch_tokens") > 0) return;  // by the sampler, sample by sample
  const std::int64_t batch = s.integer(section + ".batch");
  RETORT_CHECK(data.endless() || batch <= data.size, recipe_.place(s, section + ".batch"), ": ",
               who, section, ".batch = ", batch, " is larger than its ", data.size,
               " training samples");
}

void JobList::check_lengths(const ExperimentData& data) const {
  for (const SourceModel& model : models_) {
    if (!model.trained) continue;  // there are no samples for it
    const nn::DataFacts& facts = model.is_teacher ? data.teacher->facts() : data.facts();
    const std::string who = model.is_teacher ? "" : "model '" + model.name + "': ";
    check_batch(*model.settings, who, model.training(), facts);
    const nn::Dataset& samples = model.is_teacher ? *data.teacher : *data.student;
    const auto steps = planned_steps(*model.settings, model.training(), samples);
    for (const SnapshotRule& rule : snapshots_of(static_cast<std::size_t>(&model - &models_[0])))
      RETORT_CHECK(rule.step <= steps, place_of_teacher_step(recipe_, rule.step), " = ", rule.step,
                   " is behind the last of the ", steps, " steps that ", model.name, " trains");
    if (!model.is_teacher) check_stages(*model.settings, who, samples);
  }
  for (const Arm& arm : recipe_.arms) {
    check_batch(arm.settings, "arm '" + arm.name + "': ", "train", data.facts());
    check_stages(arm.settings, "arm '" + arm.name + "': ", *data.student);
  }
}

void JobList::check_device(Device device) const {
  const auto check = [&](const Settings& s, const std::string& who) {
    const distill::DivergenceKind& kind =
        distill::divergence_kinds().at(s.text("distill.divergence"));
    RETORT_CHECK(device == Device::kCpu || kind.on_cuda() || !uses_teacher(s),
                 recipe_.place(s, "distill.divergence"), ": ", who, "distill.divergence = \"",
                 kind.names.front(),
                 "\" has no CUDA kernel in the library that brought it: expected --device cpu");
  };
  for (const SourceModel& model : models_)
    if (!model.is_teacher) check(*model.settings, "model '" + model.name + "': ");
  for (const Arm& arm : recipe_.arms) check(arm.settings, "arm '" + arm.name + "': ");
}

void JobList::check_stages(const Settings& s, const std::string& who,
                           const nn::Dataset& data) const {
  const std::string& method = s.text("distill.method");
  if (method == "one_shot") return;
  const bool extraction = method == "extraction";
  if (extraction && s.integer("distill.extraction.window") > 0) return;  // they may end earlier
  const std::string key = "distill." + method + ".steps";
  const std::int64_t stages = extraction ? hidden_layers(s, "student", data.facts())
                                         : static_cast<std::int64_t>(tools::snapshots_of(s).size());
  const std::int64_t planned = planned_steps(s, "train", data);
  RETORT_CHECK(stages * s.integer(key) < planned, recipe_.place(s, key), ": ", who, key, " = ",
               s.integer(key), " in each of ", stages, " stages leaves none of ", planned,
               " steps to the final teacher's output");
}

std::int64_t JobList::model_steps(std::size_t model, const ExperimentData& data) const {
  const SourceModel& m = models_[model];
  const nn::Dataset& samples = m.is_teacher ? *data.teacher : *data.student;
  return planned_steps(*m.settings, m.training(), samples);
}

std::int64_t JobList::student_steps(const StudentJob& job, const ExperimentData& data) const {
  return planned_steps(job.arm->settings, "train", *data.student);
}

std::shared_ptr<nn::Model> JobList::fresh_model(std::size_t model, std::size_t t,
                                                const ExperimentData& data) const {
  const SourceModel& m = models_[model];
  return build_model(*m.settings, m.section(), data.facts(),
                     derive_key(teacher_seeds_[t], m.is_teacher ? "teacher" : m.name.c_str()));
}

TrainingPlan JobList::model_plan(std::size_t model, std::size_t t, const ExperimentData& data,
                                 const TeacherSet* teacher,
                                 std::shared_ptr<const NamedCurriculum> curriculum) const {
  const SourceModel& m = models_[model];
  const Settings& s = *m.settings;
  TrainingPlan plan;
  plan.arm = m.name;
  plan.seed = teacher_seeds_[t];
  plan.task = task_;
  plan.settings = &s;
  plan.section = m.training();
  plan.key = derive_key(plan.seed, m.is_teacher ? "teacher" : m.name.c_str());
  plan.model = fresh_model(model, t, data);
  plan.model_section = m.section();
  plan.data = m.is_teacher ? data.teacher : data.student;
  plan.reading =
      reading_of(s, m.section(), *data.kind,
                 precision_of(s, m.is_teacher ? "teacher.precision" : "train.precision"));
  plan.snapshots = snapshots_of(model);
  plan.stages = distill::one_shot_stages();
  plan.curriculum = std::move(curriculum);
  if (m.learns_from == SourceModel::kNothing) return plan;
  plan.teacher = teacher;
  plan.teachers.push_back(teacher->final);
  plan.stages = stages_of(s, plan, *teacher, data.facts(), &plan.teachers);
  return plan;
}

TrainingPlan JobList::student_plan(const StudentJob& job, const ExperimentData& data,
                                   const TeacherSet* teacher,
                                   std::shared_ptr<const NamedCurriculum> curriculum) const {
  const Settings& s = job.arm->settings;
  TrainingPlan plan;
  plan.arm = job.arm->name;
  plan.seed = job.number;
  plan.task = task_;
  plan.settings = &s;
  plan.section = "train";
  plan.key = derive_key(job.seed, "student");
  plan.model = build_model(s, "student", data.facts(), plan.key);
  plan.model_section = "student";
  plan.reading = reading_of(s, "student", *data.kind, precision_of(s, "train.precision"));
  plan.data = data.student;
  plan.teacher = teacher;  // of its judge, where it learns from nobody
  plan.curriculum = std::move(curriculum);
  plan.stages = distill::one_shot_stages();
  if (job.model == SourceModel::kNothing) return plan;
  plan.teachers.push_back(teacher->final);
  plan.stages = stages_of(s, plan, *teacher, data.facts(), &plan.teachers);
  return plan;
}

int jobs_at_once(const Settings& settings, Device device, std::size_t count) {
  const std::int64_t wanted = settings.integer("train.jobs");
  if (device != Device::kCpu || wanted == 1 || count <= 1) return 1;
  std::int64_t jobs = std::min<std::int64_t>(thread_count(), static_cast<std::int64_t>(count));
  if (wanted > 1) jobs = std::min(jobs, wanted);
  return static_cast<int>(jobs);
}

void run_jobs(std::size_t count, int at_once, const std::function<void(std::size_t)>& body) {
  if (at_once <= 1) {
    for (std::size_t i = 0; i < count; ++i) body(i);
    return;
  }
  const int threads = thread_count();
  set_thread_count(at_once);
  try {
    parallel_for(static_cast<std::int64_t>(count), 1,
                 [&](std::int64_t begin, std::int64_t) { body(static_cast<std::size_t>(begin)); });
  } catch (...) {
    set_thread_count(threads);
    throw;
  }
  set_thread_count(threads);
}

}  // namespace retort::tools
