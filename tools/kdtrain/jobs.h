// The jobs of a recipe: teachers first, then arms x seeds, and what each of them trains.
#pragma once
#include <functional>
#include <vector>

#include "tools/kdtrain/experiment.h"
#include "tools/kdtrain/trainer.h"

namespace retort::tools {

struct StudentJob {
  const Arm* arm;
  std::size_t teacher;  // index of JobList::teacher_seeds()
  std::int64_t seed;    // the student's
  std::int64_t number;  // as logged and as the folder is named
};

/// Keeps references to both.
class JobList {
 public:
  /// Throws Error(kUsage) for an arm named "teacher".
  explicit JobList(const Recipe& recipe);

  bool needs_teacher() const { return needs_teacher_; }
  /// By the recipe itself; else its weights are a file.
  bool trains_teacher() const { return trains_teacher_; }
  bool several_teachers() const { return teacher_seeds_.size() > 1; }
  const std::vector<std::int64_t>& teacher_seeds() const { return teacher_seeds_; }
  const std::vector<StudentJob>& students() const { return students_; }
  /// Teachers' snapshots that progressive arms want: accuracies to exceed, ascending.
  const std::vector<double>& snapshot_accuracies() const { return snapshots_; }
  bool wants_scores() const { return wants_scores_; }  // an arm has a curriculum
  bool wants_untrained() const { return wants_untrained_; }
  /// Every arm that has a teacher accepts an untrained one.
  bool all_allow_untrained() const { return all_allow_; }
  const Settings& settings() const { return base_; }

  /// Throws Error(kUsage) for a batch that is larger than its training samples, and for stages that
  /// leave no step for the one they lead to.
  void check_lengths(const ExperimentData& data) const;

  std::int64_t teacher_steps(const ExperimentData& data) const;
  std::int64_t student_steps(const StudentJob& job, const ExperimentData& data) const;

  std::shared_ptr<nn::Model> fresh_teacher(std::size_t t, const ExperimentData& data) const;
  TrainingPlan teacher_plan(std::size_t t, const ExperimentData& data) const;
  /// `teacher`: of the job, null if the recipe has none. `curriculum`: null unless the arm's order
  /// is one. Notes and weights files are the caller's.
  TrainingPlan student_plan(const StudentJob& job, const ExperimentData& data,
                            const TeacherSet* teacher,
                            std::shared_ptr<const Curriculum> curriculum) const;

 private:
  void check_stages(const Arm& arm, const ExperimentData& data) const;

  const Recipe& recipe_;
  const Settings& base_;
  bool needs_teacher_ = false, trains_teacher_ = false;
  bool wants_scores_ = false, wants_untrained_ = false, all_allow_ = true;
  std::vector<std::int64_t> teacher_seeds_;
  std::vector<double> snapshots_;
  std::vector<StudentJob> students_;
};

/// The arm asks for the untrained teacher's projections (the control).
bool uses_untrained_teacher(const Settings& arm);

/// auto takes the GPU where there is one, but not for parity: its networks are so small that the
/// time to launch a kernel would be all. Its f32 is TF32 from now on where train.tf32 says so.
Device open_device(const std::string& name, const Settings& settings);

/// How many of `count` jobs run at the same time: on the CPU as many as there are threads
/// (train.jobs limits it), each on one thread; else one after the other with all threads.
int jobs_at_once(const Settings& settings, Device device, std::size_t count);
/// Runs body(0) .. body(count - 1), `at_once` at a time. Rethrows the first failure.
void run_jobs(std::size_t count, int at_once, const std::function<void(std::size_t)>& body);

}  // namespace retort::tools
