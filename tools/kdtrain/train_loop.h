// One job: a model trained on one arm and seed. The only code that sees both distill and
// curriculum.
#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distill/schedules/stage.h"
#include "tools/kdtrain/experiment.h"
#include "tools/kdtrain/progress.h"
#include "tools/kdtrain/run_folder.h"

namespace retort::tools {

/// What all jobs of a run share.
struct RunContext {
  const Recipe* recipe = nullptr;
  const ExperimentData* data = nullptr;
  RunFolder* folder = nullptr;
  MetricsLog* log = nullptr;
  Progress* progress = nullptr;
  Device device = Device::kCpu;
  std::atomic<bool> abort = false;  // another job failed: stop at the next step
};

/// What one job trains.
struct TrainingPlan {
  std::string arm;
  std::int64_t seed = 0;  // as logged and as the folder is named
  const Settings* settings = nullptr;
  std::string section;    // "train", or "teacher.train"
  std::uint64_t key = 0;  // of everything random
  std::shared_ptr<nn::Model> model;
  std::string model_section;  // "student" or "teacher": for the metadata of the weights
  std::shared_ptr<const nn::Dataset> data;
  nn::Normalize normalize;
  const TeacherSet* teacher = nullptr;                      // null: trains on labels alone
  std::vector<distill::Stage> stages;                       // never empty
  std::vector<std::shared_ptr<distill::Teacher>> teachers;  // by Stage::teacher
  std::shared_ptr<const Curriculum> curriculum;             // order = "curriculum" only
  std::vector<double> snapshot_accuracies;                  // teachers: keep a copy when exceeded
  std::vector<std::string> notes;                           // for the report
  /// More metrics of the final line; asked once, after the last step.
  std::function<std::map<std::string, double>(const std::shared_ptr<nn::Model>&)> final_metrics;
};

/// What the newest valid checkpoint of a job says, tensors aside.
struct JobState {
  std::int64_t step = 0;
  bool finished = false;
  std::string lines;  // of metrics.jsonl, each with its newline
};
/// Nothing if there is no valid checkpoint.
std::optional<JobState> read_job_state(const std::string& folder);

enum class Outcome { kFinished, kStopped };

/// Steps that the plan will take.
std::int64_t planned_steps(const Settings& settings, const std::string& section,
                           std::int64_t samples);

/// File of a teacher's snapshot in its folder.
std::string snapshot_file(double accuracy);

/// Trains, from the newest checkpoint if there is one. Writes lines, checkpoints and at the end
/// model.safetensors. kStopped after a signal or context.abort, with a checkpoint written.
/// Errors    kNumerics naming the step for a loss that is not finite; what data and models throw.
Outcome run_job(RunContext& context, const TrainingPlan& plan, std::size_t log_job);

}  // namespace retort::tools
