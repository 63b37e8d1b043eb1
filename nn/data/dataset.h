// What training and distillation see of data: samples by index, made into batches.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/tensor/tensor.h"
#include "nn/data/normalize.h"

namespace retort::nn {

/// Samples as the models take them. sample[b] and augment[b] say which sample row b is and what was
/// done to it, so that scores, per-sample weights and cached teacher outputs find their row.
struct Batch {
  Tensor inputs;          // for the student: images (B, H, W, C), parity (B, n)
  Tensor teacher_inputs;  // for the teacher: the same tensor where normalisation and dtype are
  Tensor targets;         // i32 (B)
  std::vector<std::int64_t> sample;
  std::vector<std::uint32_t> augment;  // 0: as stored; see kernels/image_batch/image_batch.h

  std::int64_t size() const { return static_cast<std::int64_t>(sample.size()); }
};

enum class Augment : std::uint8_t {
  kNone,
  kCropFlip,  // crop from the image padded by 4 zero pixels, horizontal flip
};
/// "none", "crop_flip". Throws Error(kUsage) listing them.
Augment parse_augment(const std::string& text);
const char* name_of(Augment augment);

/// How samples become a batch. The augmentation is a function of (seed, epoch, sample) alone.
struct BatchOptions {
  Device device = Device::kCpu;
  DType dtype = DType::kF32;  // or kBF16
  Augment augment = Augment::kNone;
  std::uint64_t seed = 0;
  std::uint32_t epoch = 0;
  Normalize normalize = {};                         // the student's; default none
  std::optional<Normalize> teacher_normalize = {};  // unset: the student's
  std::optional<DType> teacher_dtype = {};          // unset: dtype
};

/// Labelled samples 0 .. size() - 1. Const and thread-safe.
class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual std::int64_t size() const = 0;
  virtual std::int64_t classes() const = 0;
  /// Class of sample i, in [0, classes()).
  virtual std::int32_t label(std::int64_t i) const = 0;
  /// Of content and format: equal hashes mean equal samples in equal order.
  virtual std::uint64_t hash() const = 0;
  /// Of one sample: (H, W, C) or (n).
  virtual Shape input_shape() const = 0;
  /// What it is, for messages and reports: "cifar10, 10000 images".
  virtual std::string describe() const = 0;
  /// Rows in the order of `samples` (repeats allowed). Throws Error(kUsage) on an index outside.
  virtual Batch make_batch(std::span<const std::int64_t> samples,
                           const BatchOptions& options) const = 0;

 protected:
  void check_samples(std::span<const std::int64_t> samples) const;
};

/// Indices from text such as "0:5000, 7000, 9000:" (end exclusive; empty text: all), in the order
/// written. Throws Error(kUsage) on anything outside [0, size) or written twice.
std::vector<std::int64_t> parse_index_ranges(const std::string& text, std::int64_t size);

/// "f3a1..." 16 hex digits, as hashes are shown.
std::string hex(std::uint64_t hash);

}  // namespace retort::nn
