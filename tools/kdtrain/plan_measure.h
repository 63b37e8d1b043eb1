// The dry run behind plan.h: one job's steps, timed and weighed.
#pragma once
#include <functional>

#include "tools/kdtrain/plan.h"

namespace retort::tools {

/// What to measure, and with what beside it.
struct DryRun {
  const ExperimentData* data = nullptr;
  Device device = Device::kCpu;
  int at_once = 1;
  /// Makes the plan of a job that shares no mutable state with others; called by several threads.
  /// The plan refers to what `keep` holds.
  std::function<TrainingPlan(std::shared_ptr<void>* keep)> make_plan;
};

/// Fills stages (steps of each are the caller's), evaluation_s, the bytes and
/// steps_per_epoch.
void measure_job(const DryRun& run, JobPlan* job);

/// Bytes now in use by role.
RoleBytes bytes_in_use(Device device);

}  // namespace retort::tools
