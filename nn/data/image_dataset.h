// Labelled 8-bit images in one tensor, kept on the device that makes the batches.
#pragma once
#include <mutex>

#include "nn/data/dataset.h"

namespace retort::nn {

class ImageDataset : public Dataset {
 public:
  static constexpr int kPad = 4;  // of Augment::kCropFlip

  /// images u8 (N, C, H, W) on the CPU, labels in [0, classes), one per image. `format` goes into
  /// the hash and describe(). Throws Error(kBadInput) on a label outside.
  ImageDataset(Tensor images, std::vector<std::int32_t> labels, std::int64_t classes,
               std::string format);

  std::int64_t size() const override { return images_.dim(0); }
  std::int64_t classes() const override { return classes_; }
  std::int32_t label(std::int64_t i) const override;
  std::uint64_t hash() const override { return hash_; }
  Shape input_shape() const override { return {images_.dim(2), images_.dim(3), images_.dim(1)}; }
  std::string describe() const override;
  /// On CUDA the images and labels are uploaded at the first call and stay there; a batch then
  /// costs one small upload (8 bytes a sample).
  Batch make_batch(std::span<const std::int64_t> samples,
                   const BatchOptions& options) const override;

  /// What the options' augmentation does to each of these samples: Batch::augment.
  static std::vector<std::uint32_t> augment_keys(std::span<const std::int64_t> samples,
                                                 const BatchOptions& options);

  const Tensor& images() const { return images_; }
  const std::vector<std::int32_t>& labels() const { return labels_; }
  /// A dataset of these samples, renumbered from 0. Copies them.
  std::shared_ptr<ImageDataset> subset(std::span<const std::int64_t> samples) const;
  /// The samples of several datasets of one format, one after the other.
  static std::shared_ptr<ImageDataset> concatenate(
      const std::vector<std::shared_ptr<const ImageDataset>>& parts);

 private:
  friend class ImageFeed;
  struct Resident {  // what make_batch reads, on one device
    Tensor images, labels;
    std::vector<std::pair<Normalize, Tensor>> tables;
  };
  // The returned handles stay good: nothing is ever removed.
  struct Needed {
    Tensor images, labels, table, teacher_table;
  };
  Needed needed(const BatchOptions& options) const;

  Tensor images_;
  std::vector<std::int32_t> labels_;
  std::int64_t classes_;
  std::string format_;
  std::uint64_t hash_;
  mutable std::mutex mutex_;
  mutable Resident resident_[2];  // by Device
};

}  // namespace retort::nn
