// Batches of images: augmented, normalised for each model that reads them.
#pragma once
#include "kernels/image_batch/image_batch.h"
#include "nn/data/device_feed.h"
#include "nn/data/image_dataset.h"

namespace retort::nn {

/// Treatment "augment": "none", or "crop_flip": crop from the image padded by 4 zero pixels, and
/// horizontal flip, drawn by (seed, epoch, sample). Reading "normalize": see Normalize. A variant
/// is the bits of kernels::AugmentKey.
///
/// Readings of equal dtype and normalisation are one tensor. A model of another dtype gets images
/// of its own: what it sees, and so its cached logits, must not depend on the precision of the
/// student that asks.
class ImageSource : public Source {
 public:
  static constexpr int kPad = 4;  // of crop_flip

  /// Errors    kUsage for an option that images do not have.
  ImageSource(std::shared_ptr<const ImageDataset> data, SourceOptions options);

  const DataFacts& facts() const override { return data_->facts(); }
  const SourceOptions& options() const override { return options_; }
  Batch make(std::span<const std::int64_t> samples, std::uint32_t epoch = 0) const override;
  std::vector<std::uint32_t> variants(std::span<const std::int64_t> samples,
                                      std::uint32_t epoch) const override;
  std::unique_ptr<DeviceFeed> device_feed() const override;

 private:
  friend class ImageFeed;
  /// Fills batch->inputs for the readings that are wanted, and targets; `args` says which samples.
  void launch(kernels::ImageBatchArgs args, std::span<const std::size_t> readings,
              Batch* batch) const;
  bool same_reading(std::size_t a, std::size_t b) const;

  std::shared_ptr<const ImageDataset> data_;
  SourceOptions options_;
  bool crop_flip_ = false;
  std::vector<Normalize> normalize_;  // by reading
  ImageDataset::Needed needed_;
};

}  // namespace retort::nn
