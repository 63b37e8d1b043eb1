// The jobs of a recipe: models that others learn from first, then arms x seeds, and what each trains.
#pragma once
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "tools/kdtrain/trainer.h"

namespace retort::tools {

/// A model that others learn from: [teacher], or a [[model]]. Trained once for each of
/// teacher.seeds, unless its weights are given.
struct SourceModel {
  std::string name;
  const Settings* settings = nullptr;
  bool is_teacher = false;  // of section "teacher", trained by "teacher.train"
  bool given = false;       // its weights are a file
  bool trained = true;      // in this task; else it is given, or as a task before left it
  std::size_t learns_from = kNothing;  // index of another one
  static constexpr std::size_t kNothing = static_cast<std::size_t>(-1);

  std::string section() const { return is_teacher ? "teacher" : "student"; }
  std::string training() const { return is_teacher ? "teacher.train" : "train"; }
};

struct StudentJob {
  const Arm* arm;
  std::size_t model;    // index of JobList::models() that it learns from; kNothing: none
  std::size_t judge;    // the one that it is compared with in evaluation; kNothing: none
  std::size_t teacher;  // index of JobList::teacher_seeds()
  std::int64_t seed;    // the student's
  std::int64_t number;  // as logged and as the folder is named
};

/// Teachers of all models: [model][teacher seed].
using TeacherSets = std::vector<std::vector<TeacherSet>>;

/// The recipe as each of its tasks has it, in their order: everybody's settings with the task's own,
/// and theirs for the task. One, as it is, where it has no tasks.
std::vector<Recipe> recipes_in_tasks(const Recipe& recipe);

/// The jobs of one task. Keeps references.
class JobList {
 public:
  /// recipes: recipes_in_tasks(), or one recipe alone; task: index of the one that these jobs are of.
  explicit JobList(std::span<const Recipe> recipes, std::size_t task = 0);

  /// "" where the recipe has no tasks.
  const std::string& task() const { return task_; }
  /// Those that some arm learns from, each after what it learns from itself. Models go through all
  /// tasks before the last that needs them. The teacher is trained in the first one, where only a
  /// later one needs it too, and further in those with teacher.train.continues.
  const std::vector<SourceModel>& models() const { return models_; }
  bool trains_teacher() const;
  /// This task trains the teacher further, from what the one before left.
  bool teacher_continues() const;
  bool several_teachers() const { return teacher_seeds_.size() > 1; }
  const std::vector<std::int64_t>& teacher_seeds() const { return teacher_seeds_; }
  const std::vector<StudentJob>& students() const { return students_; }
  const Recipe& recipe() const { return recipe_; }
  const Settings& settings() const { return recipe_.base; }

  /// What arms and models want of a model: kept moments of its training (of the teacher in the first
  /// task what those of all tasks want), scores of the students'
  /// samples, itself before training; and whether all of them accept an untrained one.
  std::vector<SnapshotRule> snapshots_of(std::size_t model) const;
  bool wants_scores_of(std::size_t model) const;
  /// Over how many maskings of a text its scores are means: the most that anybody asks for.
  Maskings maskings_of(std::size_t model) const;
  /// The models whose scores an arm's curriculum is made of, with scorer = "models".
  std::vector<std::size_t> scorers_of(const Settings& settings) const;
  bool wants_untrained(std::size_t model) const;
  bool all_allow_untrained(std::size_t model) const;

  /// Error(kUsage), with the key's place, for a batch that is larger than its training samples, and
  /// for stages that leave no step for the one they lead to.
  void check_lengths(const ExperimentData& data) const;

  /// Error(kUsage), with the key's place, for a divergence that has no kernel on the device.
  void check_device(Device device) const;

  std::int64_t model_steps(std::size_t model, const ExperimentData& data) const;
  std::int64_t student_steps(const StudentJob& job, const ExperimentData& data) const;

  std::shared_ptr<nn::Model> fresh_model(std::size_t model, std::size_t t,
                                         const ExperimentData& data) const;
  /// Plans of training. Notes and weights files are the caller's; `teacher` is of what it learns
  /// from, null if that is nothing; `curriculum` null unless its order is one.
  TrainingPlan model_plan(std::size_t model, std::size_t t, const ExperimentData& data,
                          const TeacherSet* teacher,
                          std::shared_ptr<const NamedCurriculum> curriculum) const;
  TrainingPlan student_plan(const StudentJob& job, const ExperimentData& data,
                            const TeacherSet* teacher,
                            std::shared_ptr<const NamedCurriculum> curriculum) const;

 private:
  std::vector<const Settings*> learners_of(std::size_t model) const;
  std::vector<const Settings*> scored_by(std::size_t model) const;
  std::size_t add_model(const std::string& name);
  void check_batch(const Settings& s, const std::string& who, const std::string& section,
                   const nn::DataFacts& data) const;
  void check_stages(const Settings& s, const std::string& who, const nn::Dataset& data) const;

  const Recipe& recipe_;
  std::span<const Recipe> later_;  // of the tasks behind this one
  bool first_;
  std::string task_;
  std::vector<std::int64_t> teacher_seeds_;
  std::vector<SourceModel> models_;
  std::vector<StudentJob> students_;
};

/// The settings ask for the untrained teacher's projections (the control).
bool uses_untrained_teacher(const Settings& settings);
/// Moments of its teacher that progressive distillation asks for.
std::vector<SnapshotRule> snapshots_of(const Settings& settings);

/// As parse_device(), but a broken plug-in is told where auto passes over it.
Device chosen_device(const std::string& name);
/// auto takes the GPU where there is one, but not for features: such networks are so small that the
/// time to launch a kernel would be all. Its f32 is TF32 from now on where train.tf32 says so.
Device open_device(const std::string& name, const Settings& settings);

/// How many of `count` jobs run at the same time: on the CPU as many as there are threads
/// (train.jobs limits it), each on one thread; else one after the other with all threads.
int jobs_at_once(const Settings& settings, Device device, std::size_t count);
/// Runs body(0) .. body(count - 1), `at_once` at a time. Rethrows the first failure.
void run_jobs(std::size_t count, int at_once, const std::function<void(std::size_t)>& body);

}  // namespace retort::tools
