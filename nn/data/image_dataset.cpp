#include "nn/data/image_dataset.h"

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "engine/runtime/allocator.h"
#include "nn/data/image_source.h"

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
    : images_(std::move(images)), labels_(std::move(labels)), format_(std::move(format)) {
  RETORT_CHECK(images_.defined() && images_.rank() == 4 && images_.dtype() == DType::kU8 &&
                   images_.device() == Device::kCpu && images_.is_contiguous(),
               "[data] expected images (N, C, H, W) of u8 on the cpu");
  RETORT_CHECK(images_.numel() >= 1 && images_.dim(0) <= 0xffffffff,
               "[data] expected at least one image and fewer than 2^32, got ", images_.shape());
  RETORT_CHECK(static_cast<std::int64_t>(labels_.size()) == images_.dim(0), "[data] expected ",
               images_.dim(0), " labels, got ", labels_.size());
  for (std::size_t i = 0; i < labels_.size(); ++i)
    RETORT_CHECK_AS(kBadInput, labels_[i] >= 0 && labels_[i] < classes,
                    "[data] expected a label in [0, ", classes, "), got ", labels_[i],
                    " for sample ", i);
  facts_.gives = Reads::kImages;
  facts_.size = facts_.epoch_size = images_.dim(0);
  facts_.classes = classes;
  facts_.input = {images_.dim(2), images_.dim(3), images_.dim(1)};
  hash_ = hash_of(images_, labels_, classes, format_);
}

std::string ImageDataset::describe() const {
  return join(format_, ", ", size(), " images of ", classes(), " classes, hash ", hex(hash_));
}

ImageDataset::Needed ImageDataset::needed(Device device,
                                          const std::vector<Normalize>& readings) const {
  const std::lock_guard lock(mutex_);
  const MemoryRoleScope role(MemoryRole::kData);
  Resident& r = resident_[static_cast<std::size_t>(device)];
  if (!r.images.defined()) {
    r.images = images_.to(device);
    r.labels = Tensor::from(labels_, {size()}, device);
  }
  Needed n{r.images, r.labels, {}};
  for (const Normalize& normalize : readings) {
    auto known = std::find_if(r.tables.begin(), r.tables.end(),
                              [&](const auto& table) { return table.first == normalize; });
    if (known == r.tables.end())
      known =
          r.tables.insert(r.tables.end(), {normalize, normalize.table(images_.dim(1)).to(device)});
    n.tables.push_back(known->second);
  }
  return n;
}

std::shared_ptr<const Source> ImageDataset::source(const SourceOptions& options) const {
  return std::make_shared<ImageSource>(
      std::static_pointer_cast<const ImageDataset>(shared_from_this()), options);
}

std::shared_ptr<const Dataset> ImageDataset::subset(std::span<const std::int64_t> samples) const {
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
  return std::make_shared<ImageDataset>(images, std::move(labels), classes(), format_);
}

std::shared_ptr<ImageDataset> ImageDataset::concatenate(
    const std::vector<std::shared_ptr<const ImageDataset>>& parts) {
  RETORT_CHECK(!parts.empty(), "[data] expected at least one dataset");
  const MemoryRoleScope role(MemoryRole::kData);
  const ImageDataset& first = *parts[0];
  std::int64_t total = 0;
  for (const auto& p : parts) {
    RETORT_CHECK(p->format_ == first.format_ && p->facts_.input == first.facts_.input &&
                     p->classes() == first.classes(),
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
  return std::make_shared<ImageDataset>(images, std::move(labels), first.classes(), first.format_);
}

}  // namespace retort::nn
