// The students of a task: curricula, the weights that they begin with, arms x seeds.
#include <algorithm>
#include <atomic>
#include <filesystem>
#include <optional>

#include "engine/io/file.h"
#include "nn/checkpoint/weights.h"
#include "tools/kdtrain/curriculum_pictures.h"
#include "tools/kdtrain/models.h"
#include "tools/kdtrain/task_run.h"
#include "tools/report/report.h"

namespace retort::tools {
std::shared_ptr<const NamedCurriculum> TaskRun::curriculum_for(const Asker& asker) {
  const Settings& s = *asker.settings;
  if (!has_curriculum(s)) return nullptr;
  const bool by_student = s.text("curriculum.scorer") == kScorerStudent;
  const TeacherSet* set =
      asker.model == SourceModel::kNothing ? nullptr : &sets_.at(asker.model).at(asker.teacher);
  std::string name = curriculum_name(s);
  if (wants_teacher_scores(s)) {
    if (set->model != "teacher") name += "_" + set->model;
    if (jobs_.several_teachers()) name += "_teacher" + std::to_string(set->seed);
  }
  if (!scoring_models(s).empty() && jobs_.several_teachers())
    name += "_teacher" + std::to_string(jobs_.teacher_seeds()[asker.teacher]);
  if (by_student) {
    // Its start hangs on who it is where it is a model, or went through a task already.
    if (before_ != nullptr || asker.is_model) name += "_" + asker.name;
    name += "_seed" + std::to_string(asker.number);
  }
  if (!jobs_.task().empty()) name += "_" + jobs_.task();
  auto& slot = curricula_[name];
  if (slot) return slot;
  const std::vector<std::size_t> models = jobs_.scorers_of(s);
  curriculum::SampleStatistics own;
  if (by_student) own = scores_by_student(asker);
  if (!models.empty()) {
    std::vector<curriculum::SampleStatistics> all;
    for (const std::size_t m : models) all.push_back(sets_.at(m).at(asker.teacher).statistics);
    own = curriculum::mean_of(all);
  }
  const bool by_teacher = !by_student && models.empty() && set != nullptr;
  slot = make_curriculum(s, name, by_teacher ? set->statistics : own, *data_.student,
                         set == nullptr ? asker.seed : set->seed);
  ranks().on_writer([&] {
    shared_.folder->write_once("curriculum/" + name + ".csv", slot->curriculum.csv);
    write_curriculum_pictures(shared_.folder->path(), *slot, data_);
  });
  return slot;
}

curriculum::SampleStatistics TaskRun::scores_by_student(const Asker& asker) const {
  const Settings& s = *asker.settings;
  TrainingPlan plan;
  plan.section = "train";
  plan.model = build_model(s, "student", data_.facts(), derive_key(asker.seed, asker.purpose()));
  plan.reading = reading_of(s, "student", *data_.kind, precision_of(s, "train.precision"));
  start_weights(s, asker.teacher, asker.name, asker.number, &plan);
  plan.model->to(shared_.device);
  return scores_by(*plan.model, plan.reading, asker, /*training=*/false);
}

curriculum::SampleStatistics TaskRun::scores_by(nn::Model& model, const nn::Reading& reading,
                                                const Asker& asker, bool training) const {
  const Settings& s = *asker.settings;
  const Beat beat(&shared_.progress,
                  "scoring with " + asker.name + "/" + std::to_string(asker.number),
                  data_.student->size());
  const Maskings maskings = maskings_of(s);
  return score_samples(
      model, *plain_source(*data_.student, shared_.device, {reading}, maskings.in_turn_of()),
      s.integer("train.evaluate_batch"), maskings.count,
      training ? beat.of_batches() : beat.of_batches_until_stopped(), ranks().shared());
}

void TaskRun::add_rescoring(const Asker& asker, TrainingPlan* plan) {
  if (plan->curriculum == nullptr || asker.settings->integer("curriculum.rescore_epochs") == 0 ||
      asker.settings->text("curriculum.scorer") != kScorerStudent)
    return;
  const std::string name = "rescored/" + plan->curriculum->name + "_" + asker.name + "_seed" +
                           std::to_string(asker.number) + "_step";
  const nn::Reading reading = plan->reading;
  plan->rescore = [this, asker, name, reading](nn::Model& model, std::int64_t step) {
    const auto made = make_curriculum(*asker.settings, name + std::to_string(step),
                                      scores_by(model, reading, asker, /*training=*/true),
                                      *data_.student, asker.seed);
    // Nobody reads it back: a checkpoint keeps the order, and a failed job may be tried again with
    // another rate.
    ranks().on_writer([&] {
      const std::string file = shared_.folder->path() + "/curriculum/" + made->name + ".csv";
      make_folders(std::filesystem::path(file).parent_path().string());
      write_file_atomically(file, made->curriculum.csv);
    });
    return made->curriculum;
  };
}

TaskRun::Asker TaskRun::asker_of(const StudentJob& job) {
  return {&job.arm->settings, job.model, job.teacher, job.seed, job.number, job.arm->name, false};
}

TaskRun::Asker TaskRun::asker_of(std::size_t m, std::size_t t) const {
  const SourceModel& model = jobs_.models()[m];
  const std::int64_t seed = jobs_.teacher_seeds()[t];
  return {model.settings, model.learns_from, t, seed, seed, model.name, true};
}

bool TaskRun::run_students() {
  for (const StudentJob& job : jobs_.students())
    if (why_not(job).empty()) curriculum_for(asker_of(job));
  shared_.next_phase();  // the final lines of students tell of students
  std::atomic<bool> complete = true;
  run_all(jobs_.students().size(), [&](std::size_t i) {
    if (!run_student(jobs_.students()[i], logged_students_[i])) complete = false;
  });
  return complete;
}

bool TaskRun::run_student(const StudentJob& job, const LoggedJob& logged) {
  const std::string& arm = job.arm->name;
  const std::int64_t steps = jobs_.student_steps(job, data_);
  if (passed_over(arm, job.number, logged, why_not(job), steps)) return true;
  if (logged.finished) {
    shared_.progress.finish(arm + "/" + std::to_string(job.number), steps);
    return true;
  }
  if (stopping()) return false;
  if (!run_and_tell(student_plan(job), logged.log_job, steps)) return false;
  write_report_quietly();
  return true;
}

TrainingPlan TaskRun::student_plan(const StudentJob& job) {
  std::shared_ptr<const NamedCurriculum> curriculum;
  const TeacherSet* teacher = nullptr;
  if (job.judge != SourceModel::kNothing && !failed_models_[job.judge].contains(job.teacher))
    teacher = &sets_[job.judge][job.teacher];
  {
    const std::lock_guard lock(shared_.mutex);
    curriculum = curriculum_for(asker_of(job));
  }
  TrainingPlan plan = jobs_.student_plan(job, data_, teacher, curriculum);
  if (const auto at = notes_.find(plan.arm); at != notes_.end()) plan.notes = at->second;
  start_weights(job.arm->settings, job.teacher, plan.arm, plan.seed, &plan);
  if (const auto at = arm_notes_.find({plan.arm, job.teacher}); at != arm_notes_.end())
    for (const std::string& problem : at->second)
      plan.notes.push_back("allowed untrained teacher" +
                           (jobs_.several_teachers() ? " " + std::to_string(teacher->seed) : "") +
                           ": " + problem);
  add_rescoring(asker_of(job), &plan);
  if (curriculum)
    plan.notes.insert(plan.notes.end(), curriculum->curriculum.warnings.begin(),
                      curriculum->curriculum.warnings.end());
  return plan;
}

void TaskRun::load_start(const std::string& file, const Settings& s, const std::string& section,
                         TrainingPlan* plan) const {
  nn::WeightsInfo info = nn::load_weights(*plan->model, file);
  take_metadata(info.metadata, s, section, *data_.kind, &plan->reading);
  // Where the folder lies is no part of what is logged.
  if (const std::string own = shared_.folder->path() + "/"; info.path.starts_with(own))
    info.path.erase(0, own.size());
  if (std::string told = told_of_drawn(info); !told.empty()) plan->notes.push_back(std::move(told));
}

void TaskRun::start_weights(const Settings& s, std::size_t t, const std::string& arm,
                            std::int64_t seed, TrainingPlan* plan) const {
  if (plan->section != "train") {  // the teacher
    if (before_ != nullptr) {
      const std::string folder = before_->folder_of("teacher", seed);  // "": it was given
      std::optional<RunRanks::HandedOut> files;
      if (!folder.empty()) files.emplace(hand_out(folder, {"files.json", kJobWeights}));
      return load_start(teacher_before(seed), s, "teacher", plan);
    }
    if (const std::string& start = s.text("teacher.train.weights"); !start.empty())
      load_start(find_weights(recipe_.base, start), s, "teacher", plan);
    return;
  }
  std::string file;
  std::optional<RunRanks::HandedOut> files;
  if (before_ != nullptr) {
    const std::string folder = shared_.folder->job_folder(arm, seed, before_->jobs_.task());
    files.emplace(hand_out(folder, {"files.json", kJobWeights}));
    check_job_file(folder, kJobWeights);
    file = folder + "/" + kJobWeights;
  } else if (!s.text("student.weights").empty()) {
    file = find_weights(recipe_.base, s.text("student.weights"));
  }
  if (!file.empty()) load_start(file, s, "student", plan);
  const std::string& from = s.text("student.init");
  if (from.empty() || before_ != nullptr) return;
  for (std::size_t m = 0; m < jobs_.models().size(); ++m) {
    if (jobs_.models()[m].name != from) continue;
    start_from_layers(*plan->model, *unfolded_copy(m, t), s);
    return;
  }
  fail(ErrorCode::kUsage, recipe_.place(s, "student.init"), ": student.init: no arm learns from '",
       from, "'");
}

void TaskRun::write_report_quietly() {
  if (data_.endless()) return;  // many short jobs: once at the end
  if (!ranks().writes()) return;
  const detail::WaitScope reading;  // no sign of a stuck rank, however long the log is
  const std::lock_guard lock(shared_.mutex);
  try {
    write_report(shared_.folder->path(), report_text(shared_.recipe));
  } catch (const Error& e) {  // the next one, or the last, tells
    shared_.progress.line(std::string("note: no report yet: ") + e.what());
  }
}

}  // namespace retort::tools
