// Batches by position. A position is (epoch, step): a batch is a function of it and of the loader's
// settings, so a run resumes from two integers, and any thread may have made the batch.
#pragma once
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "nn/data/dataset.h"

namespace retort::nn {

enum class Shuffle : std::uint8_t {
  kNone,    // the order as given: what a curriculum wants
  kEpoch,   // a new permutation of the order in every epoch
  kWindow,  // permutes within consecutive windows of `window` batches, anew in every epoch
};

struct LoaderOptions {
  std::int64_t batch = 128;
  bool drop_last = false;  // leave out the last batch of an epoch if it is not full
  Shuffle shuffle = Shuffle::kNone;
  std::int64_t window = 0;  // batches; for kWindow
  std::uint64_t seed = 0;   // of the shuffle; the augmentation's is in BatchOptions
  bool prefetch = false;    // make the next batch in another thread; on the CPU only, else ignored
};

struct Position {
  std::int64_t epoch = 0, step = 0;  // step within the epoch
  bool operator==(const Position&) const = default;
};

class Loader {
 public:
  /// `order` lists the samples in the order they are fed; empty: all, by index. The epoch of
  /// `batch_options` is set from the position. Throws Error(kUsage) if batch < 1, an index is
  /// outside, or drop_last leaves no batch.
  Loader(std::shared_ptr<const Dataset> dataset, std::vector<std::int64_t> order,
         LoaderOptions options, BatchOptions batch_options);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  std::int64_t samples() const;  // per epoch, before drop_last
  std::int64_t steps_per_epoch() const;
  Position next(Position p) const;

  /// Which samples the batch at p holds: a pure function.
  std::vector<std::int64_t> indices(Position p) const;
  /// The batch at p. Fastest when called with p, next(p), next(next(p)), ...
  Batch at(Position p);

  /// Another order from now on (pacing, rescoring); same rules as in the constructor.
  void set_order(std::vector<std::int64_t> order);

  const Dataset& dataset() const { return *dataset_; }
  const LoaderOptions& options() const { return options_; }

 private:
  void check_order(const std::vector<std::int64_t>& order) const;
  Batch make(Position p) const;
  void stop_prefetch();
  void work();

  std::shared_ptr<const Dataset> dataset_;
  std::vector<std::int64_t> order_;
  LoaderOptions options_;
  BatchOptions batch_options_;

  // Note [Prefetch]: one slot. The worker fills it for wanted_; at() takes it when it is for the
  // position asked for, and drops it otherwise. order_ changes only while no worker runs.
  enum class Slot : std::uint8_t { kIdle, kWanted, kMaking, kReady };
  std::mutex mutex_;
  std::condition_variable changed_;
  std::thread worker_;
  Slot slot_ = Slot::kIdle;
  Position wanted_;
  Batch ready_;
  std::exception_ptr error_;
  bool stop_ = false;
};

}  // namespace retort::nn
