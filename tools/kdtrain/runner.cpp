// `kdtrain run`: data, teachers, curricula, then arms x seeds.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <set>

#include "distill/student/initialize.h"
#include "engine/io/file.h"
#include "engine/runtime/allocator.h"
#include "engine/runtime/device.h"
#include "nn/checkpoint/weights.h"
#include "tools/kdtrain/command_line.h"
#include "tools/kdtrain/curriculum_pictures.h"
#include "tools/kdtrain/job_log.h"
#include "tools/kdtrain/jobs.h"
#include "tools/kdtrain/models.h"
#include "tools/kdtrain/prepare.h"
#include "tools/kdtrain/provenance.h"
#include "tools/kdtrain/recipe_identity.h"
#include "tools/kdtrain/signals.h"
#include "tools/kdtrain/step_costs.h"
#include "tools/kdtrain/teachers.h"
#include "tools/kdtrain/train_loop.h"
#include "tools/report/report.h"

namespace retort::tools {
namespace {

// A job without a result.
struct FailedJob {
  std::string title, reason;
};

// What the whole run keeps while tasks and phases come and go.
struct Shared {
  const Recipe& recipe;  // as checked, before any task
  Device device;
  RunFolder& folder;
  MetricsLog& log;
  Progress& progress;
  RunContext& context;
  bool retry_failed = false;
  MemoryStatistics peak = {};
  std::mutex mutex = {};
  std::vector<FailedJob> failed = {};

  // Peaks count anew; the whole run's are kept. Blocks that the last phase left in the cache have
  // sizes that the next one hardly asks for.
  void next_phase() {
    const MemoryStatistics now = memory_statistics(device);
    peak.peak_bytes = std::max(peak.peak_bytes, now.peak_bytes);
    for (std::size_t r = 0; r < now.peak_by_role.size(); ++r)
      peak.peak_by_role[r] = std::max(peak.peak_by_role[r], now.peak_by_role[r]);
    reset_peak_memory(device);
    release_cached_memory(device);
  }
};

// A recipe as one of its tasks has it: settings of everybody, data, jobs, teachers, curricula.
class TaskRun {
 public:
  // before: the task whose weights this one goes on with; null for the first.
  TaskRun(Shared& shared, Recipe recipe, std::string name, const TaskRun* before)
      : shared_(shared),
        recipe_(std::move(recipe)),
        name_(std::move(name)),
        before_(before),
        jobs_(recipe_, name_) {}

  // Files that are missing or do not fit, and a given teacher that knows nothing, are told before
  // anything is trained or written.
  void open() {
    OpenedTask opened = open_task(jobs_, before_ == nullptr, shared_.device);
    data_ = std::move(opened.data);
    sets_ = std::move(opened.sets);
    data_hash_ = hash_of(data_);
    failed_models_.resize(jobs_.models().size());
  }

  // Which samples students and teacher train on, where it is a part of the files.
  void write_origin() const {
    std::string csv = "part,sample,index\n";
    const auto add = [&](const char* part, const std::vector<std::int64_t>& origin) {
      for (std::size_t i = 0; i < origin.size(); ++i)
        csv += std::string(part) + "," + std::to_string(i) + "," + std::to_string(origin[i]) + "\n";
    };
    add("student", data_.student_origin);
    add("teacher", data_.teacher_origin);
    if (data_.student_origin.empty() && data_.teacher_origin.empty()) return;
    shared_.folder.write_once(name_.empty() ? "samples.csv" : "samples_" + name_ + ".csv", csv);
  }

  // Adds the jobs to the log; the steps that they will take.
  double list() {
    double steps = 0;
    logged_models_.resize(jobs_.models().size());
    for (std::size_t m = 0; m < jobs_.models().size(); ++m)
      for (const std::int64_t seed : jobs_.teacher_seeds()) {
        const SourceModel& model = jobs_.models()[m];
        if (!trained_here(m)) {
          logged_models_[m].push_back({shared_.log.add_job("", false), false, true, ""});
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
  std::int64_t job_count() const {
    std::size_t count = logged_students_.size();
    for (const auto& of_model : logged_models_) count += of_model.size();
    return static_cast<std::int64_t>(count);
  }
  const ExperimentData& data() const { return data_; }
  // Hashes of its samples, by split.
  void add_hashes(std::map<std::string, std::string>* hashes) const {
    for (const std::string& part : split(data_hash_, ' ')) {
      const std::size_t colon = part.find(':');
      (*hashes)[(name_.empty() ? "" : name_ + ".") + part.substr(0, colon)] =
          part.substr(colon + 1);
    }
  }
  std::size_t runs() const { return jobs_.students().size() / recipe_.arms.size(); }

  // False after a signal.
  bool run() {
    shared_.context.data = &data_;
    shared_.context.data_hash = data_hash_;
    shared_.next_phase();
    for (std::size_t m = 0; m < jobs_.models().size(); ++m)
      if (!run_model(m)) return false;
    return run_students();
  }
  // The tasks behind it need its files alone.
  void release() {
    sets_.clear();
    curricula_.clear();
  }

 private:
  struct LoggedJob {
    std::size_t log_job = 0;
    bool finished = false;
    bool elsewhere = false;  // its weights come from a file or another task
    std::string failure;     // of an earlier sitting
  };

  // The teacher is trained in the first task; later ones go on with it.
  bool trained_here(std::size_t m) const {
    const SourceModel& model = jobs_.models()[m];
    return !model.given && (!model.is_teacher || before_ == nullptr);
  }

  LoggedJob add_job(const std::string& arm, std::int64_t seed) {
    std::optional<JobState> state;
    if (shared_.folder.resuming()) {
      const std::string folder = shared_.folder.job_folder(arm, seed, name_);
      if (shared_.retry_failed) forget_failure(folder);
      state = read_job_state(folder);
    }
    const bool finished = state && state->finished;
    RETORT_CHECK_AS(kBadInput, !state || is_same_data(state->data, data_hash_),
                    "[resume] the data is not what ", arm, "/", seed, " began with: it was ",
                    state->data, ", is ", data_hash_);
    if (!state) return {shared_.log.add_job("", false), false, false, ""};
    for (const std::string& damaged : state->rejected)
      shared_.progress.line("note: a damaged checkpoint is passed over, " + title_of(arm, seed) +
                            " goes on from step " + std::to_string(state->step) + ": " + damaged);
    const bool failed = !state->failure.empty();
    return {shared_.log.add_job(state->lines, finished || failed), finished, false, state->failure};
  }

  std::string title_of(const std::string& arm, std::int64_t seed) const {
    return arm + "/" + std::to_string(seed) + (name_.empty() ? "" : " in task " + name_);
  }

  // A job has failed: the others go on without it.
  void add_failure(const std::string& arm, std::int64_t seed, const std::string& reason,
                   std::int64_t steps) {
    const std::string title = title_of(arm, seed);
    {
      const std::lock_guard lock(shared_.mutex);
      shared_.failed.push_back({title, reason});
      failed_.insert({arm, seed});
    }
    shared_.progress.line(title + " failed: " + reason);
    shared_.progress.finish(arm + "/" + std::to_string(seed), steps);
  }
  bool has_failed(const std::string& arm, std::int64_t seed) const {
    return failed_.contains({arm, seed});
  }
  // Why a job cannot begin, or "": it goes on with weights, and learns from models, that others
  // made.
  std::string why_not(const std::string& arm, std::int64_t seed, std::size_t model,
                      std::size_t t) const {
    if (before_ != nullptr && before_->has_failed(arm, seed))
      return "it failed in task " + before_->name_;
    if (model != SourceModel::kNothing && failed_models_[model].contains(t))
      return "its teacher " + jobs_.models()[model].name + "/" +
             std::to_string(jobs_.teacher_seeds()[t]) + " failed";
    return "";
  }
  // True if the job failed before or cannot begin; it is told then.
  bool passed_over(const std::string& arm, std::int64_t seed, const LoggedJob& logged,
                   const std::string& why, std::int64_t steps) {
    if (!logged.failure.empty()) {
      add_failure(arm, seed, logged.failure, steps);
      return true;
    }
    if (why.empty() || logged.finished) return false;
    log_not_begun(arm, seed, name_, why, &shared_.log, logged.log_job);
    add_failure(arm, seed, why, steps);
    return true;
  }

  // Jobs side by side; when one fails the others stop at a checkpoint.
  void run_all(std::size_t count, const std::function<void(std::size_t)>& body) {
    run_jobs(count, jobs_at_once(recipe_.base, shared_.device, count), [&](std::size_t i) {
      try {
        body(i);
      } catch (...) {
        shared_.context.abort = true;
        throw;
      }
    });
  }

  bool stopping() const { return stop_requested() != 0 || shared_.context.abort; }

  // -- models that others learn from --------------------------------------------------------------
  bool run_model(std::size_t m) {
    const SourceModel& model = jobs_.models()[m];
    const std::size_t count = jobs_.teacher_seeds().size();
    if (trained_here(m) && !model.is_teacher)
      for (std::size_t t = 0; t < count; ++t)
        if (model.learns_from == SourceModel::kNothing ||
            !failed_models_[model.learns_from].contains(t))
          curriculum_for(asker_of(m, t));
    std::atomic<bool> complete = true;
    if (trained_here(m))
      run_all(count, [&](std::size_t t) {
        if (!train_model(m, t)) complete = false;
      });
    if (!complete) return false;
    for (std::size_t t = 0; t < count; ++t) {
      if (stop_requested() != 0) return false;
      const std::int64_t seed = jobs_.teacher_seeds()[t];
      if (!trained_here(m) && !model.given &&
          passed_over(model.name, seed, logged_models_[m][t], why_not(model.name, seed, m, t), 0))
        failed_models_[m].insert(t);
      if (has_failed(model.name, seed)) {
        failed_models_[m].insert(t);
        sets_[m].emplace_back();  // nobody looks at it
        continue;
      }
      if (!model.given) {
        const std::string folder = shared_.folder.job_folder(
            model.name, jobs_.teacher_seeds()[t], trained_here(m) ? name_ : before_->first_task());
        sets_[m].push_back(load_teacher_set(jobs_, m, t, data_, shared_.device,
                                            {folder + "/model.safetensors", folder}));
      }
      TeacherSet& set = sets_[m][t];
      const auto start = Clock::now();
      measure_teacher(jobs_, m, data_, shared_.device, &shared_.progress, &set);
      for (const Arm& arm : recipe_.arms)
        if (uses_teacher(arm.settings) && arm.teachers.at(0) == model.name)
          if (auto notes = notes_of_arm(arm.settings, set, data_, shared_.device); !notes.empty())
            arm_notes_[{arm.name, t}] = std::move(notes);
      if (logged_models_[m][t].elsewhere) {
        TrainingPlan plan;
        plan.arm = model.name;
        plan.seed = set.seed;
        plan.task = name_;
        plan.model = unfolded_copy(m, t);
        log_evaluated(plan, data_, set.evaluation, probe(plan.model, m, t), seconds_since(start),
                      &shared_.log, logged_models_[m][t].log_job);
        shared_.progress.finish(model.name + "/" + std::to_string(set.seed), 0);
      }
    }
    return true;
  }

  bool train_model(std::size_t m, std::size_t t) {
    const SourceModel& model = jobs_.models()[m];
    const LoggedJob& logged = logged_models_[m][t];
    const std::int64_t seed = jobs_.teacher_seeds()[t], steps = jobs_.model_steps(m, data_);
    if (passed_over(model.name, seed, logged, why_not(model.name, seed, model.learns_from, t),
                    steps))
      return true;
    if (logged.finished) {
      shared_.progress.finish(model.name + "/" + std::to_string(seed), steps);
      return true;
    }
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
    return run_and_tell(plan, logged.log_job, steps);
  }

  // False after a signal.
  bool run_and_tell(const TrainingPlan& plan, std::size_t log_job, std::int64_t steps) {
    const Outcome outcome = run_job(shared_.context, plan, log_job);
    if (outcome.kind == Outcome::kStopped) return false;
    shared_.log.finish(log_job);
    if (outcome.kind == Outcome::kFailed)
      add_failure(plan.arm, plan.seed, outcome.reason, steps);
    else
      shared_.progress.finish(plan.arm + "/" + std::to_string(plan.seed), steps);
    return true;
  }

  // The degree-1 probe as metrics, where the recipe asks for it.
  distill::Metrics probe(const std::shared_ptr<nn::Model>& model, std::size_t m,
                         std::size_t t) const {
    if (!recipe_.base.flag("train.probe") || !jobs_.models()[m].is_teacher) return {};
    return probe_teacher(model, jobs_.fresh_model(m, t, data_), data_, shared_.device);
  }

  std::string weights_of(std::size_t m, std::size_t t) const {
    const SourceModel& model = jobs_.models()[m];
    if (model.given) return find_weights(recipe_.base, recipe_.base.text("teacher.weights"));
    return shared_.folder.job_folder(model.name, jobs_.teacher_seeds()[t],
                                     trained_here(m) ? name_ : before_->first_task()) +
           "/model.safetensors";
  }
  const std::string& first_task() const {
    return before_ == nullptr ? name_ : before_->first_task();
  }

  // A model as its file has it: a teacher's own is folded for evaluation.
  std::shared_ptr<nn::Model> unfolded_copy(std::size_t m, std::size_t t) const {
    std::shared_ptr<nn::Model> model = jobs_.fresh_model(m, t, data_);
    nn::load_weights(*model, weights_of(m, t));
    model->to(shared_.device);
    return model;
  }

  // -- students -----------------------------------------------------------------------------------
  // Who asks for a curriculum: an arm or a model, with a teacher or none, and its own seed.
  struct Asker {
    const Settings* settings;
    std::size_t model, teacher;
    std::int64_t seed, number;
    std::string name;
    bool is_model;
    // A model and a student of one seed start from different weights.
    const char* purpose() const { return is_model ? name.c_str() : "student"; }
  };

  std::shared_ptr<const NamedCurriculum> curriculum_for(const Asker& asker) {
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
    if (by_student) {
      // Its start hangs on who it is where it is a model, or went through a task already.
      if (before_ != nullptr || asker.is_model) name += "_" + asker.name;
      name += "_seed" + std::to_string(asker.number);
    }
    if (!name_.empty()) name += "_" + name_;
    auto& slot = curricula_[name];
    if (slot) return slot;
    const curriculum::SampleStatistics of_student =
        by_student ? scores_by_student(asker) : curriculum::SampleStatistics{};
    slot = make_curriculum(s, name, by_student || set == nullptr ? of_student : set->statistics,
                           *data_.student, set == nullptr ? asker.seed : set->seed);
    shared_.folder.write_once("curriculum/" + name + ".csv", slot->curriculum.csv);
    write_curriculum_pictures(shared_.folder.path(), *slot, data_);
    return slot;
  }

  // The student as it starts says what is easy for it.
  curriculum::SampleStatistics scores_by_student(const Asker& asker) const {
    const Settings& s = *asker.settings;
    TrainingPlan plan;
    plan.section = "train";
    plan.model = build_model(s, "student", data_.facts(), derive_key(asker.seed, asker.purpose()));
    plan.reading = reading_of(s, "student", *data_.kind, precision_of(s, "train.precision"));
    start_weights(s, asker.teacher, asker.name, asker.number, &plan);
    plan.model->to(shared_.device);
    const Beat beat(&shared_.progress,
                    "scoring with " + asker.name + "/" + std::to_string(asker.number),
                    data_.student->size());
    return score_samples(*plan.model, *plain_source(*data_.student, shared_.device, {plan.reading}),
                         s.integer("train.evaluate_batch"), beat.of_batches());
  }

  static Asker asker_of(const StudentJob& job) {
    return {&job.arm->settings, job.model, job.teacher, job.seed, job.number, job.arm->name, false};
  }
  Asker asker_of(std::size_t m, std::size_t t) const {
    const SourceModel& model = jobs_.models()[m];
    const std::int64_t seed = jobs_.teacher_seeds()[t];
    return {model.settings, model.learns_from, t, seed, seed, model.name, true};
  }

  bool run_students() {
    for (const StudentJob& job : jobs_.students())
      if (why_not(job.arm->name, job.number, job.model, job.teacher).empty())
        curriculum_for(asker_of(job));
    shared_.next_phase();  // the final lines of students tell of students
    std::atomic<bool> complete = true;
    run_all(jobs_.students().size(), [&](std::size_t i) {
      if (!run_student(jobs_.students()[i], logged_students_[i])) complete = false;
    });
    return complete;
  }

  bool run_student(const StudentJob& job, const LoggedJob& logged) {
    const std::string& arm = job.arm->name;
    const std::int64_t steps = jobs_.student_steps(job, data_);
    if (passed_over(arm, job.number, logged, why_not(arm, job.number, job.model, job.teacher),
                    steps))
      return true;
    if (logged.finished) {
      shared_.progress.finish(arm + "/" + std::to_string(job.number), steps);
      return true;
    }
    if (stopping()) return false;
    if (!run_and_tell(student_plan(job), logged.log_job, steps)) return false;
    write_report_quietly();
    return true;
  }

  TrainingPlan student_plan(const StudentJob& job) {
    std::shared_ptr<const NamedCurriculum> curriculum;
    const TeacherSet* teacher = nullptr;
    if (job.judge != SourceModel::kNothing && !failed_models_[job.judge].contains(job.teacher))
      teacher = &sets_[job.judge][job.teacher];
    {
      const std::lock_guard lock(shared_.mutex);
      curriculum = curriculum_for(asker_of(job));
    }
    TrainingPlan plan = jobs_.student_plan(job, data_, teacher, curriculum);
    start_weights(job.arm->settings, job.teacher, plan.arm, plan.seed, &plan);
    if (const auto at = arm_notes_.find({plan.arm, job.teacher}); at != arm_notes_.end())
      for (const std::string& problem : at->second)
        plan.notes.push_back("allowed untrained teacher" +
                             (jobs_.several_teachers() ? " " + std::to_string(teacher->seed) : "") +
                             ": " + problem);
    if (curriculum)
      plan.notes.insert(plan.notes.end(), curriculum->curriculum.warnings.begin(),
                        curriculum->curriculum.warnings.end());
    return plan;
  }

  // What a student begins with beside its seed: the task before, a file, layers of another model.
  void start_weights(const Settings& s, std::size_t t, const std::string& arm, std::int64_t seed,
                     TrainingPlan* plan) const {
    if (plan->section != "train") return;
    std::string file;
    if (before_ != nullptr) {
      const std::string folder = shared_.folder.job_folder(arm, seed, before_->name_);
      check_job_file(folder, kJobWeights);
      file = folder + "/" + kJobWeights;
    }
    if (before_ == nullptr && !s.text("student.weights").empty())
      file = find_weights(recipe_.base, s.text("student.weights"));
    if (!file.empty()) {
      const nn::WeightsInfo info = nn::load_weights(*plan->model, file);
      take_metadata(info.metadata, s, "student", *data_.kind, &plan->reading);
    }
    const std::string& from = s.text("student.init");
    if (from.empty() || before_ != nullptr) return;
    for (std::size_t m = 0; m < jobs_.models().size(); ++m) {
      if (jobs_.models()[m].name != from) continue;
      distill::copy_layers(*plan->model, *unfolded_copy(m, t),
                           layer_map(s.texts("student.init_layers")));
      return;
    }
    fail(ErrorCode::kUsage, recipe_.place(s, "student.init"),
         ": student.init: no arm learns from '", from, "'");
  }

  static distill::LayerMap layer_map(const std::vector<std::string>& pairs) {
    distill::LayerMap map;
    for (const std::string& pair : pairs) {
      const std::size_t equal = pair.find('=');
      map.emplace_back(pair.substr(0, equal),
                       equal == std::string::npos ? pair : pair.substr(equal + 1));
    }
    if (map.empty()) map.emplace_back("", "");
    return map;
  }

  void write_report_quietly() {
    if (data_.endless()) return;  // many short jobs: once at the end
    const std::lock_guard lock(shared_.mutex);
    try {
      write_report(shared_.folder.path(), report_text(shared_.recipe));
    } catch (const Error& e) {  // the next one, or the last, tells
      shared_.progress.line(std::string("note: no report yet: ") + e.what());
    }
  }

  Shared& shared_;
  Recipe recipe_;
  std::string name_;
  const TaskRun* before_;
  JobList jobs_;
  ExperimentData data_;
  std::string data_hash_;
  std::vector<std::vector<LoggedJob>> logged_models_;      // [model][teacher seed]
  std::vector<LoggedJob> logged_students_;                 // beside jobs_.students()
  std::set<std::pair<std::string, std::int64_t>> failed_;  // jobs by arm or model, and seed
  std::vector<std::set<std::size_t>> failed_models_;       // [model]: teacher seeds
  TeacherSets sets_;
  std::map<std::string, std::shared_ptr<const NamedCurriculum>> curricula_;
  std::map<std::pair<std::string, std::size_t>, std::vector<std::string>> arm_notes_;  // teacher
};

class Run {
 public:
  Run(const CommandLine& line, const Recipe& recipe)
      : recipe_(recipe),
        line_(line),
        folder_(line.out.empty() ? "runs/" + recipe.name : line.out, recipe, line.resume,
                line.retry_failed),
        log_(folder_.file("metrics.jsonl")),
        shared_{recipe,           open_device(line.device, recipe.base),
                folder_,          log_,
                progress_,        context_,
                line.retry_failed} {
    if (recipe.tasks.empty())
      tasks_.push_back(std::make_unique<TaskRun>(shared_, recipe, "", nullptr));
    for (const TaskSpec& task : recipe.tasks)
      tasks_.push_back(std::make_unique<TaskRun>(shared_, recipe_in_task(recipe, task), task.name,
                                                 tasks_.empty() ? nullptr : tasks_.back().get()));
  }

  // Returns the signal that stopped the run, or 0.
  int run() {
    for (const auto& task : tasks_) task->open();
    const Sitting sitting = this_sitting();
    folder_.start(recipe_, provenance_comment(sitting));
    begin_provenance(folder_.path(), sitting);
    for (const auto& task : tasks_) task->write_origin();
    for (const std::string& change : folder_.changes())
      progress_.line("changed since the last sitting: " + change);
    started_ = true;
    context_.recipe = &recipe_;
    context_.folder = &folder_;
    context_.log = &log_;
    context_.progress = &progress_;
    context_.device = shared_.device;
    list_jobs();
    for (const auto& task : tasks_) {
      if (!task->run()) return stop_requested() == 0 ? -1 : stop_requested();
      task->release();
    }
    shared_.next_phase();
    finish_provenance(folder_.path());
    progress_.line("memory of tensors: " + memory_text(shared_.peak) + "; the process at most " +
                   std::to_string(process_peak_mib()) + " MiB");
    return 0;
  }

  const std::string& path() const { return folder_.path(); }
  bool started() const { return started_; }
  /// There is something to go on from.
  bool checkpointed() const { return context_.checkpointed; }
  std::int64_t jobs() const { return jobs_; }
  const std::vector<FailedJob>& failed() const { return shared_.failed; }

 private:
  Sitting this_sitting() const {
    Sitting sitting{line_.invocation, name_of(shared_.device), {}, hashes_of_files(recipe_)};
    if (shared_.device == Device::kCuda)
      sitting.device += std::string(": ") + cuda_device_info().name;
    for (const auto& task : tasks_) task->add_hashes(&sitting.data);
    return sitting;
  }

  void list_jobs() {
    double steps = 0;
    for (const auto& task : tasks_) {
      steps += task->list();
      jobs_ += task->job_count();
    }
    log_.open();
    progress_.set_total(jobs_, steps);
    const std::size_t arms = recipe_.arms.size(), runs = tasks_.front()->runs();
    std::fprintf(stderr, "%s: %s on %s, %zu arm%s x %zu run%s, folder %s%s\n", recipe_.name.c_str(),
                 tasks_.front()->data().describe().c_str(), name_of(shared_.device), arms,
                 arms == 1 ? "" : "s", runs, runs == 1 ? "" : "s", folder_.path().c_str(),
                 folder_.resuming() ? " (resumed)" : "");
  }

  static long process_peak_mib() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss / 1024;
  }

  const Recipe& recipe_;
  const CommandLine& line_;
  RunFolder folder_;
  bool started_ = false;
  std::int64_t jobs_ = 0;
  MetricsLog log_;
  Progress progress_;
  RunContext context_;
  Shared shared_;
  std::vector<std::unique_ptr<TaskRun>> tasks_;
};

std::string resume_command(const CommandLine& line, const std::string& folder) {
  std::string again = "kdtrain run";
  if (!line.subject.empty()) again += " " + shell_word(line.subject);
  for (const std::string& word : line.words) again += " " + shell_word(word);
  for (const std::string& library : line.load) again += " --load " + shell_word(library);
  if (line.device != "auto") again += " --device " + line.device;
  if (line.threads > 0) again += " --threads " + std::to_string(line.threads);
  return again + " --out " + shell_word(folder) + " --resume";
}

}  // namespace

int run_command(const CommandLine& line) {
  const auto recipe = checked_recipe(line);
  if (!recipe) return static_cast<int>(ErrorCode::kUsage);
  install_signal_handlers();
  Run run(line, *recipe);
  int signal = 0;
  // The failure itself is what counts; the report is of what there is.
  const auto report_failure = [&](ErrorCode code, const std::string& what) {
    try {
      write_report(run.path(), report_text(*recipe));
    } catch (const Error&) {
    }
    // What the machine lacked may be there the next time.
    const bool passing = code == ErrorCode::kIo || code == ErrorCode::kMemory;
    fail(code, what,
         passing && run.started()
             ? "\nthe last checkpoints stand; to go on when the cause is gone:\n  " +
                   resume_command(line, run.path())
             : "");
  };
  try {
    signal = run.run();
  } catch (const Error& e) {
    report_failure(e.code(), e.what());
  } catch (const std::bad_alloc&) {
    report_failure(ErrorCode::kMemory, "out of memory");
  }
  write_report(run.path(), report_text(*recipe));
  if (signal != 0) {
    std::fprintf(stderr, "stopped by %s %s; to go on:\n  %s\n", signal_name(signal),
                 run.checkpointed() ? "after a checkpoint" : "before the first checkpoint",
                 resume_command(line, run.path()).c_str());
    return exit_code_of(signal);
  }
  std::fputs(results_table(run.path(), report_text(*recipe)).c_str(), stdout);
  std::printf("%s/report.html\n", run.path().c_str());
  if (run.failed().empty()) return 0;
  std::fflush(stdout);
  std::string list;
  for (const FailedJob& job : run.failed()) list += "\n  " + job.title + ": " + job.reason;
  fail(
      ErrorCode::kNumerics, run.failed().size(), " of ", run.jobs(),
      " jobs failed; the results of the others stand:", list,
      "\na smaller lr or a clip_norm may help; the failed ones are tried again, each from its last "
      "checkpoint, by\n  ",
      resume_command(line, run.path()), " --retry-failed");
}

}  // namespace retort::tools
