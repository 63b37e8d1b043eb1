// Batches of a resident image dataset in an order that lies on the device too: what a captured step
// makes its batches from, in one launch and without the host.
#pragma once
#include <functional>
#include <optional>
#include <vector>

#include "kernels/image_batch/image_batch.h"
#include "nn/data/image_dataset.h"

namespace retort::nn {

/// Rows [begin, begin + rows) of an ImageFeed's order, augmented for (seed, epoch).
struct FeedBatch {
  std::int64_t begin = 0, rows = 0;
  std::int64_t epoch = 0;
  std::uint64_t seed = 0;
  bool operator==(const FeedBatch&) const = default;
};

/// The images, labels and an order of samples on one device. make() gives the same bytes as
/// ImageDataset::make_batch() for the samples order[begin ...) and the cursor's epoch and seed.
class ImageFeed {
 public:
  using Cursor = kernels::ImageCursor;

  /// options: device, dtypes, augment and normalisations; the epoch comes with the cursor.
  ImageFeed(std::shared_ptr<const ImageDataset> dataset, BatchOptions options);

  /// The order from now on, an epoch's or a part of one: one upload, which waits. An order longer
  /// than any before moves to other memory: address() changes, and what was captured is void.
  /// Errors    Error(kUsage) for a sample outside the dataset.
  void set_order(std::span<const std::int64_t> samples);
  const std::vector<std::int64_t>& order() const { return order_; }

  /// Which samples a step takes.
  using Plan = std::function<std::vector<std::int64_t>(std::int64_t step)>;
  /// Batch `step` of the plan, augmented for epoch step / steps_per_epoch with the options' seed.
  /// The first call within an epoch uploads the order of that epoch's steps.
  FeedBatch place(const Plan& plan, std::int64_t steps_per_epoch, std::int64_t step);
  /// The same for a step of the epoch that is uploaded; nothing for one of another epoch.
  std::optional<FeedBatch> place(std::int64_t step) const;

  const void* address() const { return device_order_.defined() ? device_order_.raw() : nullptr; }

  std::int64_t uploads() const { return uploads_; }  // orders so far

  struct Images {
    Tensor inputs;          // (B, H, W, C)
    Tensor teacher_inputs;  // the same tensor where normalisation and dtype are
    Tensor targets;         // i32 (B)
  };
  /// One launch (two if the teacher's dtype is another) that reads the cursor in device memory
  /// (Cursor as u8 (sizeof(Cursor))). `rows` must be left in the order behind its begin.
  /// for_teacher false: no second output.
  Images make(const Tensor& cursor, std::int64_t rows, bool for_teacher = true) const;
  /// The teacher's inputs alone.
  Tensor make_for_teacher(const Tensor& cursor, std::int64_t rows) const;

  /// The same batch by way of the host: with the samples and keys named.
  Batch host_batch(const FeedBatch& batch) const;
  /// Its samples and keys alone, for a cache.
  struct Names {
    std::span<const std::int64_t> samples;  // until the next order
    std::vector<std::uint32_t> augment;
  };
  Names names(const FeedBatch& batch) const;

  const BatchOptions& options() const { return options_; }
  const ImageDataset& dataset() const { return *dataset_; }

 private:
  BatchOptions options_of(const FeedBatch& batch) const;
  kernels::ImageBatchArgs arguments(const Tensor& cursor, std::int64_t rows, DType dtype) const;
  Tensor empty(std::int64_t rows, DType dtype) const;
  DType teacher_dtype() const { return options_.teacher_dtype.value_or(options_.dtype); }

  std::shared_ptr<const ImageDataset> dataset_;
  BatchOptions options_;
  ImageDataset::Needed needed_;
  std::vector<std::int64_t> order_;
  std::int64_t uploads_ = 0;
  std::int64_t epoch_ = -1, epoch_begin_ = 0;  // of place(): the epoch uploaded, its first step
  std::vector<std::int64_t> begins_;           // where its steps begin in the order, and the end
  Tensor device_order_;  // i32 holding u32, as long as the longest order so far
};

}  // namespace retort::nn
