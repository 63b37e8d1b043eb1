#include "tools/kdtrain/task_run.h"

#include <algorithm>
#include <atomic>
#include <optional>

#include "nn/checkpoint/weights.h"
#include "tools/kdtrain/job_log.h"
#include "tools/kdtrain/models.h"
#include "tools/kdtrain/step_costs.h"

namespace retort::tools {

void RunShared::next_phase() {
  const MemoryStatistics now = memory_statistics(device);
  peak.peak_bytes = std::max(peak.peak_bytes, now.peak_bytes);
  for (std::size_t r = 0; r < now.peak_by_role.size(); ++r)
    peak.peak_by_role[r] = std::max(peak.peak_by_role[r], now.peak_by_role[r]);
  reset_peak_memory(device);
  release_cached_memory(device);
}

void TaskRun::open() {
  data_ = open_data(recipe_.base, trains_teacher_here());
  jobs_.check_lengths(data_);
  jobs_.check_device(shared_.device);
  data_hash_ = hash_of(data_);
  for (const Arm& arm : recipe_.arms)
    if (const std::string& file = arm.settings.text("student.weights"); !file.empty())
      nn::load_weights(*build_model(arm.settings, "student", data_.facts(), 0),
                       find_weights(recipe_.base, file));
  const std::string& start = recipe_.base.text("teacher.train.weights");
  if (trains_teacher_here() && !start.empty())
    nn::load_weights(*build_model(recipe_.base, "teacher", data_.facts(), 0),
                     find_weights(recipe_.base, start));
  for (const Arm& arm : recipe_.arms)
    check_vocabularies(arm.settings,
                       jobs_.models().empty() ? std::vector<std::string>{"student"}
                                              : std::vector<std::string>{"teacher", "student"},
                       *data_.student);
  sets_.resize(jobs_.models().size());
  for (std::size_t m = 0; m < jobs_.models().size(); ++m)
    if (jobs_.models()[m].given)
      sets_[m].push_back(
          load_teacher_set(jobs_, m, 0, data_, shared_.device,
                           {find_weights(recipe_.base, recipe_.base.text("teacher.weights")), ""}));
}

double TaskRun::list() {
  double steps = 0;
  logged_models_.resize(jobs_.models().size());
  for (std::size_t m = 0; m < jobs_.models().size(); ++m)
    for (const std::int64_t seed : jobs_.teacher_seeds()) {
      const SourceModel& model = jobs_.models()[m];
      if (!trained_here(m)) {
        logged_models_[m].push_back({shared_.log.add_job("", false), false, true});
        continue;
      }
      logged_models_[m].push_back(add_job(model.name, seed));
      steps += static_cast<double>(jobs_.model_steps(m, data_));
    }
  for (const StudentJob& job : jobs_.students()) {
    logged_students_.push_back(add_job(job.arm->name, job.number));
    steps += static_cast<double>(jobs_.student_steps(job, data_));
  }
  return steps;
}

std::int64_t TaskRun::job_count() const {
  std::size_t count = logged_students_.size();
  for (const auto& of_model : logged_models_) count += of_model.size();
  return static_cast<std::int64_t>(count);
}

bool TaskRun::run() {
  shared_.context.data = &data_;
  shared_.context.data_hash = data_hash_;
  shared_.next_phase();
  for (std::size_t m = 0; m < jobs_.models().size(); ++m)
    if (!run_model(m)) return false;
  return run_students();
}

void TaskRun::release() {
  sets_.clear();
  curricula_.clear();
}

bool TaskRun::trained_here(std::size_t m) const {
  const SourceModel& model = jobs_.models()[m];
  return !model.given && (!model.is_teacher || before_ == nullptr);
}

TaskRun::LoggedJob TaskRun::add_job(const std::string& arm, std::int64_t seed) {
  std::optional<JobState> state;
  if (shared_.folder.resuming())
    state = read_job_state(shared_.folder.job_folder(arm, seed, jobs_.task()));
  const bool finished = state && state->finished;
  RETORT_CHECK_AS(kBadInput, !state || state->data == data_hash_, "[resume] the data is not what ",
                  arm, "/", seed, " began with: it was ", state->data, ", is ", data_hash_);
  return {shared_.log.add_job(state ? state->lines : "", finished), finished, false};
}

void TaskRun::run_all(std::size_t count, const std::function<void(std::size_t)>& body) {
  run_jobs(count, jobs_at_once(recipe_.base, shared_.device, count), [&](std::size_t i) {
    try {
      body(i);
    } catch (...) {
      shared_.context.abort = true;
      throw;
    }
  });
}

// -- models that others learn from ----------------------------------------------------------------

bool TaskRun::run_model(std::size_t m) {
  const SourceModel& model = jobs_.models()[m];
  const std::size_t count = jobs_.teacher_seeds().size();
  if (trained_here(m) && !model.is_teacher)
    for (std::size_t t = 0; t < count; ++t) curriculum_for(asker_of(m, t));
  std::atomic<bool> complete = true;
  if (trained_here(m))
    run_all(count, [&](std::size_t t) {
      if (!train_model(m, t)) complete = false;
    });
  if (!complete) return false;
  for (std::size_t t = 0; t < count; ++t) {
    if (stop_requested() != 0) return false;
    if (!model.given) {
      const std::string folder =
          shared_.folder.job_folder(model.name, jobs_.teacher_seeds()[t],
                                    trained_here(m) ? jobs_.task() : before_->first_task());
      sets_[m].push_back(load_teacher_set(jobs_, m, t, data_, shared_.device,
                                          {folder + "/model.safetensors", folder}));
    }
    TeacherSet& set = sets_[m][t];
    const auto start = Clock::now();
    measure_teacher(jobs_, m, data_, shared_.device, &set);
    for (const Arm& arm : recipe_.arms)
      if (uses_teacher(arm.settings) && arm.teachers.at(0) == model.name)
        if (auto notes = notes_of_arm(arm.settings, set, data_, shared_.device); !notes.empty())
          arm_notes_[{arm.name, t}] = std::move(notes);
    if (logged_models_[m][t].elsewhere) {
      TrainingPlan plan;
      plan.arm = model.name;
      plan.seed = set.seed;
      plan.task = jobs_.task();
      plan.model = unfolded_copy(m, t);
      log_evaluated(plan, data_, set.evaluation, probe(plan.model, m, t), seconds_since(start),
                    &shared_.log, logged_models_[m][t].log_job);
      shared_.progress.finish(model.name + "/" + std::to_string(set.seed), 0);
    }
  }
  return true;
}

bool TaskRun::train_model(std::size_t m, std::size_t t) {
  const SourceModel& model = jobs_.models()[m];
  const TeacherSet* teacher = nullptr;
  std::shared_ptr<const NamedCurriculum> curriculum;
  if (model.learns_from != SourceModel::kNothing) teacher = &sets_[model.learns_from][t];
  if (!model.is_teacher) {
    const std::lock_guard lock(shared_.mutex);
    curriculum = curriculum_for(asker_of(m, t));
  }
  TrainingPlan plan = jobs_.model_plan(m, t, data_, teacher, std::move(curriculum));
  start_weights(*model.settings, t, plan.arm, plan.seed, &plan);
  plan.final_metrics = [this, m, t](const std::shared_ptr<nn::Model>& trained) {
    return probe(trained, m, t);
  };
  const std::size_t log_job = logged_models_[m][t].log_job;
  if (run_job(shared_.context, plan, log_job) != Outcome::kFinished) return false;
  shared_.log.finish(log_job);
  shared_.progress.finish(model.name + "/" + std::to_string(plan.seed),
                          jobs_.model_steps(m, data_));
  return true;
}

distill::Metrics TaskRun::probe(const std::shared_ptr<nn::Model>& model, std::size_t m,
                                std::size_t t) const {
  if (!recipe_.base.flag("train.probe") || !jobs_.models()[m].is_teacher) return {};
  return probe_teacher(model, jobs_.fresh_model(m, t, data_), data_, shared_.device);
}

std::string TaskRun::weights_of(std::size_t m, std::size_t t) const {
  const SourceModel& model = jobs_.models()[m];
  if (model.given) return find_weights(recipe_.base, recipe_.base.text("teacher.weights"));
  return shared_.folder.job_folder(model.name, jobs_.teacher_seeds()[t],
                                   trained_here(m) ? jobs_.task() : before_->first_task()) +
         "/model.safetensors";
}

const std::string& TaskRun::first_task() const {
  return before_ == nullptr ? jobs_.task() : before_->first_task();
}

std::shared_ptr<nn::Model> TaskRun::unfolded_copy(std::size_t m, std::size_t t) const {
  std::shared_ptr<nn::Model> model = jobs_.fresh_model(m, t, data_);
  nn::load_weights(*model, weights_of(m, t));
  model->to(shared_.device);
  return model;
}

}  // namespace retort::tools
