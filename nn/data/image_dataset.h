// Labelled 8-bit images in one tensor, kept on the device that makes the batches.
#pragma once
#include <mutex>

#include "nn/data/dataset.h"
#include "nn/data/normalize.h"

namespace retort::nn {

/// Keys of a data kind that gives images: what training does to them, and how a model reads them.
std::vector<OptionSpec> image_treatment_options();  // augment
std::vector<OptionSpec> image_reading_options();    // normalize

class ImageDataset : public Dataset {
 public:
  /// images u8 (N, C, H, W) on the CPU, labels in [0, classes), one per image. `format` goes into
  /// the hash and describe(). Throws Error(kBadInput) on a label outside.
  ImageDataset(Tensor images, std::vector<std::int32_t> labels, std::int64_t classes,
               std::string format);

  const DataFacts& facts() const override { return facts_; }
  std::uint64_t hash() const override { return hash_; }
  std::string describe() const override;
  std::vector<std::int32_t> labels() const override { return labels_; }
  /// Copies the samples.
  std::shared_ptr<const Dataset> subset(std::span<const std::int64_t> samples) const override;
  /// On CUDA the images and labels are uploaded once, by whichever source is first, and stay there;
  /// a batch then costs one small upload (8 bytes a sample), or none by its feed.
  std::shared_ptr<const Source> source(const SourceOptions& options) const override;

  const Tensor& images() const { return images_; }
  /// The samples of several datasets of one format, one after the other.
  static std::shared_ptr<ImageDataset> concatenate(
      const std::vector<std::shared_ptr<const ImageDataset>>& parts);

 private:
  friend class ImageSource;
  struct Resident {  // what batches are made from, on one device
    Tensor images, labels;
    std::vector<std::pair<Normalize, Tensor>> tables;
  };
  // The returned handles stay good: nothing is ever removed.
  struct Needed {
    Tensor images, labels;
    std::vector<Tensor> tables;  // by reading
  };
  Needed needed(Device device, const std::vector<Normalize>& readings) const;

  Tensor images_;
  std::vector<std::int32_t> labels_;
  std::string format_;
  std::uint64_t hash_;
  DataFacts facts_;
  mutable std::mutex mutex_;
  mutable Resident resident_[2];  // by Device
};

}  // namespace retort::nn
