#include "nn/data/loader.h"

#include <algorithm>

#include "engine/runtime/allocator.h"
#include "kernels/common/parallel.h"

namespace retort::nn {

BatchPlan sequential_plan(std::int64_t size, std::int64_t batch) {
  RETORT_CHECK(size >= 1 && batch >= 1, "[loader] expected at least one sample and a batch of at ",
               "least 1, got ", size, " and ", batch);
  return [size, batch, steps = size / batch + (size % batch != 0)](std::int64_t step) {
    std::vector<std::int64_t> samples;
    const std::int64_t begin = step % steps * batch, end = begin + std::min(batch, size - begin);
    for (std::int64_t i = begin; i < end; ++i) samples.push_back(i);
    return samples;
  };
}

Loader::Loader(std::shared_ptr<const Source> source, BatchPlan plan, LoaderOptions options)
    : source_(std::move(source)), options_(options) {
  RETORT_CHECK(source_ != nullptr, "[loader] expected a source");
  RETORT_CHECK(options_.steps_per_epoch >= 1, "[loader] expected at least 1 step per epoch, got ",
               options_.steps_per_epoch);
  if (source_->device() != Device::kCpu) options_.prefetch = false;
  set_plan(std::move(plan));
}

Loader::~Loader() { stop_prefetch(); }

Batch Loader::make(std::int64_t step) const {
  RETORT_CHECK(step >= 0 && epoch_of(step) <= 0xffffffff, "[loader] expected a step >= 0 in fewer ",
               "than 2^32 epochs, got ", step);
  const MemoryRoleScope role(MemoryRole::kData);
  return source_->make(plan_(step), static_cast<std::uint32_t>(epoch_of(step)));
}

Batch Loader::at(std::int64_t step) {
  if (!options_.prefetch) return make(step);
  Batch batch;
  std::exception_ptr error;
  bool have = false;
  {
    std::unique_lock lock(mutex_);
    if (slot_ != Slot::kIdle && wanted_ == step) {
      changed_.wait(lock, [&] { return slot_ == Slot::kReady; });
      batch = std::move(ready_);
      error = std::exchange(error_, nullptr);
      have = true;
    } else {
      // A batch for another step: let the worker end it, then drop it.
      changed_.wait(lock, [&] { return slot_ != Slot::kMaking; });
    }
    slot_ = Slot::kIdle;
    ready_ = {};
    error_ = nullptr;
  }
  if (error) std::rethrow_exception(error);
  if (!have) batch = make(step);
  {
    const std::lock_guard lock(mutex_);
    wanted_ = step + 1;
    slot_ = Slot::kWanted;
    if (!worker_.joinable()) worker_ = std::thread(&Loader::work, this);
  }
  changed_.notify_all();
  return batch;
}

void Loader::work() {
  const SerialScope serial;
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || slot_ == Slot::kWanted; });
    if (stop_) return;
    slot_ = Slot::kMaking;
    const std::int64_t step = wanted_;
    lock.unlock();
    Batch batch;
    std::exception_ptr error;
    try {
      batch = make(step);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    ready_ = std::move(batch);
    error_ = error;
    slot_ = Slot::kReady;
    changed_.notify_all();
  }
}

void Loader::stop_prefetch() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (worker_.joinable()) worker_.join();
  worker_ = {};
  stop_ = false;
  slot_ = Slot::kIdle;
  ready_ = {};
  error_ = nullptr;
}

void Loader::set_plan(BatchPlan plan) {
  RETORT_CHECK(plan != nullptr, "[loader] expected a plan of batches");
  stop_prefetch();
  plan_ = std::move(plan);
}

}  // namespace retort::nn
