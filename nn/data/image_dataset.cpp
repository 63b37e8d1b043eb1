#include "nn/data/image_dataset.h"

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include <cstring>

#include "engine/runtime/allocator.h"
#include "engine/runtime/device.h"
#include "kernels/image_batch/image_batch.h"

namespace retort::nn {
namespace {

std::uint64_t hash_of(const Tensor& images, const std::vector<std::int32_t>& labels,
                      std::int64_t classes, const std::string& format) {
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  XXH3_64bits_update(&state, format.data(), format.size());
  const std::int64_t header[5] = {classes, images.dim(0), images.dim(1), images.dim(2),
                                  images.dim(3)};
  XXH3_64bits_update(&state, header, sizeof header);
  XXH3_64bits_update(&state, labels.data(), labels.size() * sizeof labels[0]);
  XXH3_64bits_update(&state, images.raw(), images.bytes());
  return XXH3_64bits_digest(&state);
}

}  // namespace

ImageDataset::ImageDataset(Tensor images, std::vector<std::int32_t> labels, std::int64_t classes,
                           std::string format)
    : images_(std::move(images)),
      labels_(std::move(labels)),
      classes_(classes),
      format_(std::move(format)) {
  RETORT_CHECK(images_.defined() && images_.rank() == 4 && images_.dtype() == DType::kU8 &&
                   images_.device() == Device::kCpu && images_.is_contiguous(),
               "[data] expected images (N, C, H, W) of u8 on the cpu");
  RETORT_CHECK(images_.numel() >= 1 && images_.dim(0) <= 0xffffffff,
               "[data] expected at least one image and fewer than 2^32, got ", images_.shape());
  RETORT_CHECK(static_cast<std::int64_t>(labels_.size()) == images_.dim(0), "[data] expected ",
               images_.dim(0), " labels, got ", labels_.size());
  for (std::size_t i = 0; i < labels_.size(); ++i)
    RETORT_CHECK_AS(kBadInput, labels_[i] >= 0 && labels_[i] < classes_,
                    "[data] expected a label in [0, ", classes_, "), got ", labels_[i],
                    " for sample ", i);
  hash_ = hash_of(images_, labels_, classes_, format_);
}

std::int32_t ImageDataset::label(std::int64_t i) const {
  RETORT_CHECK(i >= 0 && i < size(), "[data] expected a sample in [0, ", size(), "), got ", i);
  return labels_[static_cast<std::size_t>(i)];
}

std::string ImageDataset::describe() const {
  return join(format_, ", ", size(), " images of ", classes_, " classes, hash ", hex(hash_));
}

ImageDataset::Needed ImageDataset::needed(const BatchOptions& options) const {
  const std::lock_guard lock(mutex_);
  const MemoryRoleScope role(MemoryRole::kData);
  Resident& r = resident_[static_cast<std::size_t>(options.device)];
  if (!r.images.defined()) {
    r.images = images_.to(options.device);
    r.labels = Tensor::from(labels_, {size()}, options.device);
  }
  const auto table = [&](const Normalize& normalize) {
    for (const auto& [known, tensor] : r.tables)
      if (known == normalize) return tensor;
    r.tables.emplace_back(normalize, normalize.table(images_.dim(1)).to(options.device));
    return r.tables.back().second;
  };
  Needed n{r.images, r.labels, table(options.normalize), {}};
  if (options.teacher_normalize && *options.teacher_normalize != options.normalize)
    n.teacher_table = table(*options.teacher_normalize);
  return n;
}

std::vector<std::uint32_t> ImageDataset::augment_keys(std::span<const std::int64_t> samples,
                                                      const BatchOptions& o) {
  std::vector<std::uint32_t> keys(samples.size());
  if (o.augment == Augment::kCropFlip)
    for (std::size_t b = 0; b < samples.size(); ++b)
      keys[b] =
          kernels::crop_flip_key(o.seed, o.epoch, static_cast<std::uint32_t>(samples[b]), kPad)
              .bits;
  return keys;
}

Batch ImageDataset::make_batch(std::span<const std::int64_t> samples, const BatchOptions& o) const {
  check_samples(samples);
  const Needed n = needed(o);
  Batch batch;
  batch.sample.assign(samples.begin(), samples.end());
  batch.augment = augment_keys(samples, o);
  std::vector<std::int64_t> entries(samples.size());
  for (std::size_t b = 0; b < samples.size(); ++b) {
    const auto sample = static_cast<std::uint32_t>(samples[b]);
    entries[b] = static_cast<std::int64_t>(std::uint64_t{batch.augment[b]} << 32 | sample);
  }
  const MemoryRoleScope role(MemoryRole::kData);
  const std::int64_t rows = batch.size();
  const Shape shape{rows, images_.dim(2), images_.dim(3), images_.dim(1)};
  const Tensor device_entries = Tensor::from(entries, {rows}, o.device);
  batch.targets = Tensor::empty({rows}, DType::kI32, o.device);
  const auto write = [&](DType dtype, const Tensor& table, Tensor& to, const Tensor& table2,
                         Tensor* to2) {
    to = Tensor::empty(shape, dtype, o.device);
    if (to2 != nullptr) *to2 = Tensor::empty(shape, dtype, o.device);
    kernels::image_batch(context_of(o.device),
                         {n.images.data<std::uint8_t>(), n.labels.data<std::int32_t>(),
                          device_entries.data<std::int64_t>(), table.data<float>(),
                          to2 != nullptr ? table2.data<float>() : nullptr, to.raw(),
                          to2 != nullptr ? to2->raw() : nullptr, batch.targets.data<std::int32_t>(),
                          rows, size(), images_.dim(1), images_.dim(2), images_.dim(3), dtype});
  };
  // A teacher of another dtype gets images of its own: what it sees, and so its cached logits, must
  // not depend on the precision of the student that asks.
  const DType teacher_dtype = o.teacher_dtype.value_or(o.dtype);
  const bool own_table = n.teacher_table.defined();
  if (teacher_dtype != o.dtype) {
    write(o.dtype, n.table, batch.inputs, {}, nullptr);
    write(teacher_dtype, own_table ? n.teacher_table : n.table, batch.teacher_inputs, {}, nullptr);
  } else {
    write(o.dtype, n.table, batch.inputs, n.teacher_table,
          own_table ? &batch.teacher_inputs : nullptr);
    if (!own_table) batch.teacher_inputs = batch.inputs;
  }
  return batch;
}

std::shared_ptr<ImageDataset> ImageDataset::subset(std::span<const std::int64_t> samples) const {
  check_samples(samples);
  RETORT_CHECK(!samples.empty(), "[data] expected a subset of at least one sample");
  const MemoryRoleScope role(MemoryRole::kData);
  const auto bytes = static_cast<std::size_t>(images_.numel() / size());
  Tensor images = Tensor::empty(
      {static_cast<std::int64_t>(samples.size()), images_.dim(1), images_.dim(2), images_.dim(3)},
      DType::kU8);
  std::vector<std::int32_t> labels;
  labels.reserve(samples.size());
  for (std::size_t i = 0; i < samples.size(); ++i) {
    std::memcpy(images.data<std::uint8_t>() + i * bytes,
                images_.data<std::uint8_t>() + static_cast<std::size_t>(samples[i]) * bytes, bytes);
    labels.push_back(labels_[static_cast<std::size_t>(samples[i])]);
  }
  return std::make_shared<ImageDataset>(images, std::move(labels), classes_, format_);
}

std::shared_ptr<ImageDataset> ImageDataset::concatenate(
    const std::vector<std::shared_ptr<const ImageDataset>>& parts) {
  RETORT_CHECK(!parts.empty(), "[data] expected at least one dataset");
  const MemoryRoleScope role(MemoryRole::kData);
  const ImageDataset& first = *parts[0];
  std::int64_t total = 0;
  for (const auto& p : parts) {
    RETORT_CHECK(p->format_ == first.format_ && p->input_shape() == first.input_shape() &&
                     p->classes_ == first.classes_,
                 "[data] expected datasets of one format, got ", first.describe(), " and ",
                 p->describe());
    total += p->size();
  }
  Tensor images = Tensor::empty(
      {total, first.images_.dim(1), first.images_.dim(2), first.images_.dim(3)}, DType::kU8);
  std::vector<std::int32_t> labels;
  std::size_t at = 0;
  for (const auto& p : parts) {
    std::memcpy(images.data<std::uint8_t>() + at, p->images_.raw(), p->images_.bytes());
    at += p->images_.bytes();
    labels.insert(labels.end(), p->labels_.begin(), p->labels_.end());
  }
  return std::make_shared<ImageDataset>(images, std::move(labels), first.classes_, first.format_);
}

}  // namespace retort::nn
