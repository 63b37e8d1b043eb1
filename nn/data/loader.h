// Batches by step: the one place that makes them. Which samples a step takes is decided elsewhere
// (curriculum/sampling/sampler.h, or any other pure function of the step), so a run resumes from
// one integer, and any thread may have made the batch.
#pragma once
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

#include "nn/data/dataset.h"

namespace retort::nn {

/// Samples of a step, counted from 0: a pure function. Never called by two threads at once.
using BatchPlan = std::function<std::vector<std::int64_t>(std::int64_t step)>;

/// Consecutive samples, epoch after epoch: step s takes [s B, (s+1) B) of each epoch's [0, size),
/// the last batch of an epoch may be short. For data without end make size the largest index.
BatchPlan sequential_plan(std::int64_t size, std::int64_t batch);

struct LoaderOptions {
  /// Steps after which the augmentation changes: epoch = step / steps_per_epoch.
  std::int64_t steps_per_epoch = 1;
  bool prefetch = false;  // make the next batch in another thread; on the CPU only, else ignored
};

class Loader {
 public:
  /// Throws Error(kUsage) on a null source or plan, or steps_per_epoch < 1.
  Loader(std::shared_ptr<const Source> source, BatchPlan plan, LoaderOptions options);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// The batch of a step >= 0. Fastest when called with 0, 1, 2, ... Throws what the plan and the
  /// source throw, at the step they threw at.
  Batch at(std::int64_t step);

  /// Another plan from now on (rescoring).
  void set_plan(BatchPlan plan);

  std::int64_t epoch_of(std::int64_t step) const { return step / options_.steps_per_epoch; }
  const Source& source() const { return *source_; }

 private:
  Batch make(std::int64_t step) const;
  void stop_prefetch();
  void work();

  std::shared_ptr<const Source> source_;
  BatchPlan plan_;
  LoaderOptions options_;

  // Note [Prefetch]: one slot. The worker fills it for wanted_; at() takes it when it is for the
  // step asked for, and drops it otherwise. plan_ changes only while no worker runs.
  enum class Slot : std::uint8_t { kIdle, kWanted, kMaking, kReady };
  std::mutex mutex_;
  std::condition_variable changed_;
  std::thread worker_;
  Slot slot_ = Slot::kIdle;
  std::int64_t wanted_ = -1;
  Batch ready_;
  std::exception_ptr error_;
  bool stop_ = false;
};

}  // namespace retort::nn
