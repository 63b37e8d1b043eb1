// Batches in an order that lies on the device too: what a captured step makes its batches from, in
// one launch and without the host.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "nn/data/loader.h"

namespace retort::nn {

/// Rows [begin, begin + rows) of a feed's order, treated for (seed, epoch).
struct FeedBatch {
  std::int64_t begin = 0, rows = 0;
  std::int64_t epoch = 0;
  std::uint64_t seed = 0;
  bool operator==(const FeedBatch&) const = default;
};

/// A FeedBatch as the device reads it: what differs between two replays of a captured step.
struct FeedCursor {
  std::int64_t begin = 0, epoch = 0;
  std::uint64_t seed = 0;
};

/// A source with an order of its samples on its device. make() gives the same bytes as
/// Source::make() for the samples order[begin ...) and the cursor's epoch and seed.
class DeviceFeed {
 public:
  explicit DeviceFeed(std::shared_ptr<const Source> source);
  virtual ~DeviceFeed() = default;

  /// The order from now on, an epoch's or a part of one: one upload, which waits. An order longer
  /// than any before moves to other memory: address() changes, and what was captured is void.
  /// Errors    kUsage for a sample outside the data.
  void set_order(std::span<const std::int64_t> samples);
  const std::vector<std::int64_t>& order() const { return order_; }

  /// Batch `step` of the plan, treated for epoch step / steps_per_epoch with the source's seed.
  /// The first call within an epoch uploads the order of that epoch's steps.
  FeedBatch place(const BatchPlan& plan, std::int64_t steps_per_epoch, std::int64_t step);
  /// The same for a step of the epoch that is uploaded; nothing for one of another epoch.
  std::optional<FeedBatch> place(std::int64_t step) const;

  const void* address() const { return device_order_.defined() ? device_order_.raw() : nullptr; }
  std::int64_t uploads() const { return uploads_; }  // orders so far

  /// The batch that the cursor in device memory (u8 (sizeof(FeedCursor))) names: only what these
  /// readings see (others are undefined), and the targets. `rows` must be left in the order behind
  /// its begin.
  virtual Batch make(const Tensor& cursor, std::int64_t rows,
                     std::span<const std::size_t> readings) const = 0;

  /// The same batch by way of the host: with the samples and variants named.
  Batch host_batch(const FeedBatch& batch) const;
  /// Its names alone, for a cache.
  struct Names {
    std::span<const std::int64_t> samples;  // until the next order
    std::vector<std::uint32_t> variants;
  };
  Names names(const FeedBatch& batch) const;

  const Source& source() const { return *source_; }
  /// Of this feed alone while the process runs: an address is used again.
  std::uint64_t id() const { return id_; }

 protected:
  void check_cursor(const Tensor& cursor, std::int64_t rows) const;
  const std::uint32_t* order_on_device() const;

 private:
  std::span<const std::int64_t> samples_of(const FeedBatch& batch) const;

  std::shared_ptr<const Source> source_;
  std::vector<std::int64_t> order_;
  std::uint64_t id_;
  std::int64_t uploads_ = 0;
  std::int64_t epoch_ = -1, epoch_begin_ = 0;  // of place(): the epoch uploaded, its first step
  std::vector<std::int64_t> begins_;           // where its steps begin in the order, and the end
  Tensor device_order_;  // i32 holding u32, as long as the longest order so far
};

}  // namespace retort::nn
