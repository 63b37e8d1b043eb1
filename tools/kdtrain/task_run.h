// One task of a run: its data, then models that others learn from, then arms x seeds.
#pragma once
#include <map>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/runtime/allocator.h"
#include "tools/kdtrain/jobs.h"
#include "tools/kdtrain/signals.h"
#include "tools/kdtrain/teachers.h"
#include "tools/kdtrain/train_loop.h"

namespace retort::tools {

/// A job without a result.
struct FailedJob {
  std::string title, reason;
};

/// What the whole run keeps while tasks and phases come and go.
struct RunShared {
  const Recipe& recipe;  // as checked, before any task
  Device device;
  RunFolder* folder;  // null before it was made
  MetricsLog* log;
  Progress& progress;
  RunContext& context;
  bool retry_failed = false;
  bool models_only = false;  // nobody learns from them in this run
  MemoryStatistics peak = {};
  std::mutex mutex = {};
  std::vector<FailedJob> failed = {};

  /// Peaks count anew; the whole run's are kept. Blocks that the last phase left in the cache have
  /// sizes that the next one hardly asks for.
  void next_phase();
};

/// A recipe as one of its tasks has it: settings of everybody, data, jobs, teachers, curricula. It
/// is opened, listed and run; models and students go on with what the task before left in the
/// folder.
class TaskRun {
 public:
  /// Keeps references. recipes: recipes_in_tasks(). before: the task whose weights this one goes on
  /// with; null for the first.
  TaskRun(RunShared& shared, std::span<const Recipe> recipes, std::size_t task,
          const TaskRun* before)
      : shared_(shared), recipe_(recipes[task]), before_(before), jobs_(recipes, task) {}

  /// Makes no collective calls.
  /// Files that are missing or do not fit, and a given teacher that knows nothing, are told before
  /// anything is trained or written.
  void open();
  /// With several ranks open() leaves out what one of them finds out for all: the given teacher's
  /// check. Collective.
  void check();
  /// Adds the jobs to the log; the steps that they will take.
  double list();
  std::int64_t job_count() const;
  const ExperimentData& data() const { return data_; }
  const JobList& jobs() const { return jobs_; }
  /// Hashes of its samples, by split.
  void add_hashes(std::map<std::string, std::string>* hashes) const;
  /// Which samples students and teacher train on, where it is a part of the files: samples.csv.
  void write_origin() const;
  std::size_t runs() const { return jobs_.students().size() / recipe_.arms.size(); }

  /// False after a signal.
  bool run();
  /// The tasks behind it need its files alone.
  void release();

 private:
  struct LoggedJob {
    std::size_t log_job = 0;
    bool finished = false;
    bool elsewhere = false;  // its weights come from a file or another task
    std::string failure;     // of an earlier sitting
  };

  bool trained_here(std::size_t m) const;
  // Of the job that trained it, in this task or the newest before; "": none did.
  std::string folder_of(const std::string& model, std::int64_t seed) const;
  // The weights that a teacher goes on with, trained or given.
  std::string teacher_before(std::int64_t seed) const;

  LoggedJob add_job(const std::string& arm, std::int64_t seed);
  std::string title_of(const std::string& arm, std::int64_t seed) const;

  // A job has failed: the others go on without it.
  void add_failure(const std::string& arm, std::int64_t seed, const std::string& reason,
                   std::int64_t steps);
  bool has_failed(const std::string& arm, std::int64_t seed) const {
    return failed_.contains({arm, seed});
  }
  // Why a job cannot begin, or "": it goes on with weights, and learns from models, that others
  // made.
  std::string why_not(const std::string& arm, std::int64_t seed, std::size_t model,
                      std::size_t t) const;
  std::string why_not(const StudentJob& job) const;
  // True if the job failed before or cannot begin; it is told then.
  bool passed_over(const std::string& arm, std::int64_t seed, const LoggedJob& logged,
                   const std::string& why, std::int64_t steps);
  // False after a signal.
  bool run_and_tell(const TrainingPlan& plan, std::size_t log_job, std::int64_t steps);

  // Jobs side by side; when one fails the others stop at a checkpoint.
  void run_all(std::size_t count, const std::function<void(std::size_t)>& body);

  // Collective.
  bool stopping() const { return ranks().stop_agreed() || shared_.context.abort; }
  RunRanks& ranks() const { return *shared_.context.ranks; }
  Once once() const {
    return [this](const std::function<std::string()>& body) { return ranks().once(body); };
  }
  // How often the teachers were asked for logits of the students' samples.
  void tell_of_caches() const;
  // Files of a job's folder, on all ranks for as long as what is returned lives.
  RunRanks::HandedOut hand_out(const std::string& folder,
                               const std::vector<std::string>& names) const;

  // -- models that others learn from --------------------------------------------------------------
  bool run_model(std::size_t m);

  bool train_model(std::size_t m, std::size_t t);

  // The degree-1 probe as metrics, where the recipe asks for it.
  distill::Metrics probe(const std::shared_ptr<nn::Model>& model, std::size_t m,
                         std::size_t t) const;

  std::string weights_of(std::size_t m, std::size_t t) const;

  // A model as its file has it: a teacher's own is folded for evaluation.
  std::shared_ptr<nn::Model> unfolded_copy(std::size_t m, std::size_t t) const;

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

  std::shared_ptr<const NamedCurriculum> curriculum_for(const Asker& asker);

  // The student as it starts says what is easy for it.
  curriculum::SampleStatistics scores_by_student(const Asker& asker) const;
  // In training a signal waits for the end of the pass, and of the step.
  curriculum::SampleStatistics scores_by(nn::Model& model, const nn::Reading& reading,
                                         const Asker& asker, bool training) const;
  // What curriculum.rescore_epochs wants of a plan that has a curriculum.
  void add_rescoring(const Asker& asker, TrainingPlan* plan);

  static Asker asker_of(const StudentJob& job);
  Asker asker_of(std::size_t m, std::size_t t) const;

  bool run_students();

  bool run_student(const StudentJob& job, const LoggedJob& logged);

  TrainingPlan student_plan(const StudentJob& job);

  // What a student begins with beside its seed: the task before, a file, layers of another model.
  void start_weights(const Settings& s, std::size_t t, const std::string& arm, std::int64_t seed,
                     TrainingPlan* plan) const;
  void load_start(const std::string& file, const Settings& s, const std::string& section,
                  TrainingPlan* plan) const;

  void write_report_quietly();

  RunShared& shared_;
  const Recipe& recipe_;
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
  std::map<std::string, std::vector<std::string>> notes_;  // by arm or model
  std::map<std::pair<std::string, std::size_t>, std::vector<std::string>> arm_notes_;  // teacher
};

}  // namespace retort::tools
