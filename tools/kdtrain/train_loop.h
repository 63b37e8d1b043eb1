// One job, an arm with a seed or a teacher: the trainer's steps with evaluation, checkpoints and
// log lines around them.
#pragma once
#include <atomic>
#include <optional>
#include <string>

#include "tools/kdtrain/job_state.h"
#include "tools/kdtrain/progress.h"
#include "tools/kdtrain/run_folder.h"
#include "tools/kdtrain/run_ranks.h"
#include "tools/kdtrain/step_costs.h"
#include "tools/kdtrain/trainer.h"

namespace retort::tools {

/// What all jobs of a run share.
struct RunContext {
  const Recipe* recipe = nullptr;
  const ExperimentData* data = nullptr;
  RunFolder* folder = nullptr;
  MetricsLog* log = nullptr;
  Progress* progress = nullptr;
  RunRanks* ranks = nullptr;
  Device device = Device::kCpu;
  SlowRank slow_rank;
  std::string data_hash;                   // of all samples: a resumed run must meet the same
  std::atomic<bool> checkpointed = false;  // there is something to go on from
  std::atomic<bool> abort = false;         // the run cannot go on: stop at the next step
};

struct Outcome {
  enum Kind { kFinished, kStopped, kFailed } kind = kFinished;
  // of kFailed
  std::int64_t step = 0;
  std::string reason = {};  // "the loss is NaN at step 12 (epoch 3)"
};

/// Trains, from the newest checkpoint if there is one. Writes lines, checkpoints and at the end
/// model.safetensors, and records its files in the folder's files.json. kStopped after a signal or
/// context.abort, with a checkpoint written. kFailed where the training itself breaks (a loss that
/// is not finite): the line and failed.json say it, the last checkpoint stands.
/// Collective where the run has several ranks: all train the same job, rank 0 writes.
/// Errors    what data and models throw.
Outcome run_job(RunContext& context, const TrainingPlan& plan, std::size_t log_job);

}  // namespace retort::tools
