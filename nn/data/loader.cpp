#include "nn/data/loader.h"

#include <algorithm>

#include "kernels/common/parallel.h"
#include "nn/data/permutation.h"

namespace retort::nn {

Loader::Loader(std::shared_ptr<const Dataset> dataset, std::vector<std::int64_t> order,
               LoaderOptions options, BatchOptions batch_options)
    : dataset_(std::move(dataset)), options_(options), batch_options_(std::move(batch_options)) {
  RETORT_CHECK(dataset_ != nullptr, "[loader] expected a dataset");
  RETORT_CHECK(options_.batch >= 1, "[loader] expected a batch of at least 1, got ",
               options_.batch);
  RETORT_CHECK(options_.shuffle != Shuffle::kWindow || options_.window >= 1,
               "[loader] expected a shuffle window of at least one batch, got ", options_.window);
  if (batch_options_.device != Device::kCpu) options_.prefetch = false;
  check_order(order);
  order_ = std::move(order);
}

Loader::~Loader() { stop_prefetch(); }

void Loader::check_order(const std::vector<std::int64_t>& order) const {
  for (const std::int64_t i : order)
    RETORT_CHECK(i >= 0 && i < dataset_->size(), "[loader] expected samples in [0, ",
                 dataset_->size(), "), got ", i);
  const std::int64_t n = order.empty() ? dataset_->size() : static_cast<std::int64_t>(order.size());
  RETORT_CHECK(!options_.drop_last || n >= options_.batch, "[loader] expected a batch of at most ",
               n, " samples, got ", options_.batch, ": every batch would be dropped");
}

std::int64_t Loader::samples() const {
  return order_.empty() ? dataset_->size() : static_cast<std::int64_t>(order_.size());
}

std::int64_t Loader::steps_per_epoch() const {
  const std::int64_t n = samples(), b = options_.batch;
  return options_.drop_last ? n / b : n / b + (n % b != 0);
}

Position Loader::next(Position p) const {
  return p.step + 1 < steps_per_epoch() ? Position{p.epoch, p.step + 1} : Position{p.epoch + 1, 0};
}

std::vector<std::int64_t> Loader::indices(Position p) const {
  RETORT_CHECK(p.epoch >= 0 && p.epoch <= 0xffffffff && p.step >= 0 && p.step < steps_per_epoch(),
               "[loader] expected a step in [0, ", steps_per_epoch(), "), got epoch ", p.epoch,
               ", step ", p.step);
  const std::int64_t n = samples(), begin = p.step * options_.batch;
  const std::int64_t end = begin + std::min(options_.batch, n - begin);
  // The stretch that is permuted as a whole: all of it, or one window.
  std::int64_t base = 0, length = n;
  if (options_.shuffle == Shuffle::kWindow) {
    base = p.step / options_.window * options_.window * options_.batch;
    length = n - base;
    if (length / options_.batch >= options_.window) length = options_.window * options_.batch;
  }
  std::vector<std::int64_t> out;
  out.reserve(static_cast<std::size_t>(end - begin));
  for (std::int64_t i = begin; i < end; ++i) {
    std::int64_t at = i;
    if (options_.shuffle != Shuffle::kNone)
      at = base + static_cast<std::int64_t>(permute(
                      static_cast<std::uint64_t>(i - base), static_cast<std::uint64_t>(length),
                      options_.seed, static_cast<std::uint32_t>(p.epoch),
                      static_cast<std::uint32_t>(base / options_.batch)));
    out.push_back(order_.empty() ? at : order_[static_cast<std::size_t>(at)]);
  }
  return out;
}

Batch Loader::make(Position p) const {
  BatchOptions options = batch_options_;
  options.epoch = static_cast<std::uint32_t>(p.epoch);
  return dataset_->make_batch(indices(p), options);
}

Batch Loader::at(Position p) {
  if (!options_.prefetch) return make(p);
  Batch batch;
  std::exception_ptr error;
  bool have = false;
  {
    std::unique_lock lock(mutex_);
    if (slot_ != Slot::kIdle && wanted_ == p) {
      changed_.wait(lock, [&] { return slot_ == Slot::kReady; });
      batch = std::move(ready_);
      error = std::exchange(error_, nullptr);
      have = true;
    } else {
      // A batch for another position: let the worker end it, then drop it.
      changed_.wait(lock, [&] { return slot_ != Slot::kMaking; });
    }
    slot_ = Slot::kIdle;
    ready_ = {};
    error_ = nullptr;
  }
  if (error) std::rethrow_exception(error);
  if (!have) batch = make(p);
  {
    const std::lock_guard lock(mutex_);
    wanted_ = next(p);
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
    const Position p = wanted_;
    lock.unlock();
    Batch batch;
    std::exception_ptr error;
    try {
      batch = make(p);
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

void Loader::set_order(std::vector<std::int64_t> order) {
  check_order(order);
  stop_prefetch();
  order_ = std::move(order);
}

}  // namespace retort::nn
