// One task of a run: its data, then models that others learn from, then arms x seeds.
#pragma once
#include <map>
#include <mutex>
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

/// What the whole run keeps while tasks and phases come and go.
struct RunShared {
  const Recipe& recipe;  // as checked, before any task
  Device device;
  RunFolder& folder;
  MetricsLog& log;
  Progress& progress;
  RunContext& context;
  MemoryStatistics peak = {};
  std::mutex mutex = {};

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

  /// Files that are missing or do not fit, and a given teacher that knows nothing, are told before
  /// anything is trained or written.
  void open();
  /// Adds the jobs to the log; the steps that they will take.
  double list();
  std::int64_t job_count() const;
  const ExperimentData& data() const { return data_; }
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
  };

  // The teacher is trained in the first task; later ones go on with it.
  bool trains_teacher_here() const { return before_ == nullptr && jobs_.trains_teacher(); }
  bool trained_here(std::size_t m) const;

  LoggedJob add_job(const std::string& arm, std::int64_t seed);

  // Jobs side by side; when one fails the others stop at a checkpoint.
  void run_all(std::size_t count, const std::function<void(std::size_t)>& body);

  bool stopping() const { return stop_requested() != 0 || shared_.context.abort; }

  // -- models that others learn from --------------------------------------------------------------
  bool run_model(std::size_t m);

  bool train_model(std::size_t m, std::size_t t);

  // The degree-1 probe as metrics, where the recipe asks for it.
  distill::Metrics probe(const std::shared_ptr<nn::Model>& model, std::size_t m,
                         std::size_t t) const;

  std::string weights_of(std::size_t m, std::size_t t) const;
  const std::string& first_task() const;

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
  std::vector<std::vector<LoggedJob>> logged_models_;  // [model][teacher seed]
  std::vector<LoggedJob> logged_students_;             // beside jobs_.students()
  TeacherSets sets_;
  std::map<std::string, std::shared_ptr<const NamedCurriculum>> curricula_;
  std::map<std::pair<std::string, std::size_t>, std::vector<std::string>> arm_notes_;  // teacher
};

}  // namespace retort::tools
