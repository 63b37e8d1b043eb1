// One job, an arm with a seed or a teacher: the trainer's steps with evaluation, checkpoints and
// log lines around them.
#pragma once
#include <atomic>
#include <optional>
#include <string>

#include "tools/kdtrain/progress.h"
#include "tools/kdtrain/run_folder.h"
#include "tools/kdtrain/trainer.h"

namespace retort::tools {

/// What all jobs of a run share.
struct RunContext {
  const Recipe* recipe = nullptr;
  const ExperimentData* data = nullptr;
  RunFolder* folder = nullptr;
  MetricsLog* log = nullptr;
  Progress* progress = nullptr;
  Device device = Device::kCpu;
  std::string data_hash;                   // of all samples: a resumed run must meet the same
  std::atomic<bool> checkpointed = false;  // there is something to go on from
  std::atomic<bool> abort = false;         // another job failed: stop at the next step
};

/// What the newest valid checkpoint of a job says, tensors aside.
struct JobState {
  std::int64_t step = 0;
  bool finished = false;
  std::string lines;  // of metrics.jsonl, each with its newline
  std::string data;   // RunContext::data_hash
};
/// Nothing if there is no valid checkpoint.
std::optional<JobState> read_job_state(const std::string& folder);

enum class Outcome { kFinished, kStopped };

/// Trains, from the newest checkpoint if there is one. Writes lines, checkpoints and at the end
/// model.safetensors. kStopped after a signal or context.abort, with a checkpoint written.
/// Errors    kNumerics naming the step for a loss that is not finite; what data and models throw.
Outcome run_job(RunContext& context, const TrainingPlan& plan, std::size_t log_job);

}  // namespace retort::tools
