// Batches of a resident image dataset in an order that lies on the device too: what a captured step
// makes its batches from, in one launch and without the host.
#pragma once
#include <vector>

#include "kernels/image_batch/image_batch.h"
#include "nn/data/image_dataset.h"

namespace retort::nn {

/// The images, labels and an order of samples on one device. make() gives the same bytes as
/// ImageDataset::make_batch() for the samples order[begin ...) and the cursor's epoch and seed.
class ImageFeed {
 public:
  using Cursor = kernels::ImageCursor;

  /// options: device, dtype, augment and normalisation; seed and epoch come with the cursor.
  ImageFeed(std::shared_ptr<const ImageDataset> dataset, BatchOptions options);

  /// The order from now on, an epoch's or a part of one: one upload, which waits. An order longer
  /// than any before moves to other memory: address() changes, and what was captured is void.
  /// Errors    Error(kUsage) for a sample outside the dataset.
  void set_order(std::span<const std::int64_t> samples);
  const std::vector<std::int64_t>& order() const { return order_; }
  const void* address() const { return device_order_.defined() ? device_order_.raw() : nullptr; }

  std::int64_t uploads() const { return uploads_; }  // orders so far

  struct Images {
    Tensor inputs;          // (B, H, W, C)
    Tensor teacher_inputs;  // the same tensor where the normalisation is
    Tensor targets;         // i32 (B)
  };
  /// One launch that reads the cursor in device memory (Cursor as u8 (sizeof(Cursor))). `rows` must
  /// be left in the order behind its begin. for_teacher false: no second output.
  Images make(const Tensor& cursor, std::int64_t rows, bool for_teacher = true) const;
  /// The teacher's inputs alone.
  Tensor make_for_teacher(const Tensor& cursor, std::int64_t rows) const;

  const BatchOptions& options() const { return options_; }
  const ImageDataset& dataset() const { return *dataset_; }

 private:
  kernels::ImageBatchArgs arguments(const Tensor& cursor, std::int64_t rows) const;
  Tensor empty(std::int64_t rows) const;

  std::shared_ptr<const ImageDataset> dataset_;
  BatchOptions options_;
  ImageDataset::Needed needed_;
  std::vector<std::int64_t> order_;
  std::int64_t uploads_ = 0;
  Tensor device_order_;  // i32 holding u32, as long as the longest order so far
};

}  // namespace retort::nn
