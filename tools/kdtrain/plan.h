// What a run will take, from a dry run: a few real steps of every different job, on the recipe's
// data and shapes, with fresh weights. Nothing is written.
//
// Note [How the plan is measured]
//   memory   Every job is run for two steps of each of its stages, one evaluation batch and one
//            checkpoint (not written), alone, under the allocator's statistics. What the first step
//            needs for a moment (models made, projections calibrated) is kept apart: jobs that
//            start together have it at the same time, later ones hardly ever. So the peak of jobs
//            side by side is the larger of the first ones' starts, and the largest ones' steady
//            peaks with one start added. Scratch memory is kept by threads for good: it is read
//            after as many copies of each job ran at the same time as the run will run, arm by
//            arm, since what a later arm keeps is not there while an earlier one has its peak. Data
//            and teachers are there for real.
//   time     Steps of each stage are timed for a short while after one that warms up, in as many
//            copies as will run side by side, and multiplied by their number. With a cache of
//            teacher logits the teacher's share counts once for each teacher and seed.
//   Not in it: the time to write files, arms that stop early (train.stop_at_accuracy), memory that
//   is not in tensors (the cache of teacher logits is told beside).
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/runtime/allocator.h"
#include "tools/kdtrain/jobs.h"

namespace retort::tools {

using RoleBytes = std::array<std::size_t, kMemoryRoles>;

struct StagePlan {
  std::string name;
  std::int64_t steps = 0;
  double step_s = 0, teacher_s = 0;  // of a step; the second is within the first
  double update_s = 0;               // so is this
};

/// Jobs of one shape: the teachers, or the seeds of an arm.
struct JobPlan {
  std::string arm;
  std::int64_t count = 0;  // how many there are
  std::int64_t steps = 0, steps_per_epoch = 1, batch = 0;
  std::vector<StagePlan> stages;
  std::int64_t evaluations = 0;
  double evaluation_s = 0;  // one, of all sets
  // Bytes of one job, scratch apart: peak while it goes on, and of the start where that is more.
  std::size_t steady = 0, start = 0;
  std::size_t scratch = 0;  // one job's part of what threads keep when jobs like it have run
  RoleBytes steady_by_role{}, start_by_role{};
  std::size_t checkpoint_bytes = 0;  // one checkpoint
  std::size_t model_bytes = 0;       // model.safetensors
  double job_s = 0;                  // one job, from the above; without the first's teacher passes
  /// With several ranks, of the one that has most: then all of the above is a rank's, too
  /// (plan_ranks.h).
  struct OfRank {
    std::int64_t rows = 0, slices = 0;  // of a batch
    std::size_t sent_bytes = 0;         // in a step
    std::size_t inbox_bytes = 0, optimizer_bytes = 0;
  } of_rank;
};

/// A part of the run with its own set of jobs.
struct PhasePlan {
  std::string name;
  int at_once = 1;
  RoleBytes resident{};  // there before its jobs: data, teachers
  std::size_t peak = 0;  // all together, scratch included
  RoleBytes by_role{};
  double seconds = 0;
};

struct RunPlan {
  std::string description;  // of the data
  std::vector<JobPlan> jobs;
  std::vector<PhasePlan> phases;
  std::size_t peak = 0;         // of the whole run
  std::size_t cache_bytes = 0;  // of teacher logits when the run ends
  std::size_t disk_bytes = 0;   // of checkpoints and weights in the run folder at the end
  double seconds = 0;
  bool may_stop_early = false;
  double measured_s = 0;  // what the plan itself took
  int ranks = 1;          // memory and time are those of one of them
};

/// ranks: as many share each batch, as its slices allow. One job at a time then.
RunPlan make_plan(const Recipe& recipe, Device device, int ranks = 1);

}  // namespace retort::tools
