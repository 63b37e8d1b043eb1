#include "nn/data/image_source.h"

#include <algorithm>
#include <numeric>

#include "engine/runtime/allocator.h"
#include "engine/runtime/device.h"

namespace retort::nn {

std::vector<OptionSpec> image_treatment_options() {
  return {choice_option("augment", "crop_flip", "none|crop_flip",
                        "Random crop with 4 pixels of padding and horizontal flip, keyed by (seed, "
                        "epoch, sample).")
              .with(kChangesCost)
              .unless("none")};
}

std::vector<OptionSpec> image_reading_options() {
  return {normalize_option("normalize", "cifar", "Normalisation of a model's inputs.")
              .with(kChangesCost)};
}

ImageSource::ImageSource(std::shared_ptr<const ImageDataset> data, SourceOptions options)
    : data_(std::move(data)), options_(std::move(options)) {
  RETORT_CHECK(data_ != nullptr, "[data] expected a dataset");
  RETORT_CHECK(!options_.readings.empty(), "[data] expected at least one reading");
  // No treatment and no normalisation are what nobody asked for.
  if (!options_.treatment.has("augment")) options_.treatment.set("augment", "none");
  options_.treatment = complete("images", image_treatment_options(), options_.treatment);
  crop_flip_ = options_.treatment.text("augment") == "crop_flip";
  for (Reading& reading : options_.readings) {
    if (!reading.options.has("normalize")) reading.options.set("normalize", "none");
    reading.options = complete("images", image_reading_options(), reading.options);
    normalize_.push_back(Normalize::of(reading.options.value("normalize"), facts().input[2]));
  }
  needed_ = data_->needed(options_.device, normalize_);
}

bool ImageSource::same_reading(std::size_t a, std::size_t b) const {
  return options_.readings[a].dtype == options_.readings[b].dtype && normalize_[a] == normalize_[b];
}

std::vector<std::uint32_t> ImageSource::variants(std::span<const std::int64_t> samples,
                                                 std::uint32_t epoch) const {
  std::vector<std::uint32_t> keys(samples.size());
  if (crop_flip_)
    for (std::size_t b = 0; b < samples.size(); ++b)
      keys[b] =
          kernels::crop_flip_key(options_.seed, epoch, static_cast<std::uint32_t>(samples[b]), kPad)
              .bits;
  return keys;
}

Batch ImageSource::make(std::span<const std::int64_t> samples, std::uint32_t epoch) const {
  data_->check_samples(samples);
  Batch batch;
  batch.sample.assign(samples.begin(), samples.end());
  batch.variant = variants(samples, epoch);
  std::vector<std::int64_t> entries(samples.size());
  for (std::size_t b = 0; b < samples.size(); ++b) {
    const auto sample = static_cast<std::uint32_t>(samples[b]);
    entries[b] = static_cast<std::int64_t>(std::uint64_t{batch.variant[b]} << 32 | sample);
  }
  const MemoryRoleScope role(MemoryRole::kData);
  const auto rows = static_cast<std::int64_t>(samples.size());
  const Tensor device_entries = Tensor::from(entries, {rows}, options_.device);
  kernels::ImageBatchArgs args{};
  args.entries = device_entries.data<std::int64_t>();
  args.batch = rows;
  std::vector<std::size_t> all(options_.readings.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  launch(args, all, &batch);
  return batch;
}

void ImageSource::launch(kernels::ImageBatchArgs args, std::span<const std::size_t> readings,
                         Batch* batch) const {
  const Shape image = facts().input;
  const Shape shape{args.batch, image[0], image[1], image[2]};
  batch->inputs.resize(options_.readings.size());
  batch->targets = Tensor::empty({args.batch}, DType::kI32, options_.device);
  args.images = needed_.images.data<std::uint8_t>();
  args.labels = needed_.labels.data<std::int32_t>();
  args.count = facts().size;
  args.height = image[0], args.width = image[1], args.channels = image[2];
  const auto empty = [&](std::size_t r) {
    batch->inputs[r] = Tensor::empty(shape, options_.readings[r].dtype, options_.device);
    return batch->inputs[r].values.raw();
  };
  args.targets = batch->targets.data<std::int32_t>();
  for (std::size_t at = 0; at < readings.size(); ++at) {
    const std::size_t r = readings[at];
    if (batch->inputs[r].defined()) continue;
    args.output = empty(r);
    args.table = needed_.tables[r].data<float>();
    args.dtype = options_.readings[r].dtype;
    args.teacher_output = nullptr;
    args.teacher_table = nullptr;
    for (const std::size_t other : readings.subspan(at + 1)) {
      if (batch->inputs[other].defined()) continue;
      if (same_reading(r, other)) {
        batch->inputs[other] = batch->inputs[r];
      } else if (options_.readings[other].dtype == args.dtype && args.teacher_output == nullptr) {
        args.teacher_output = empty(other);  // in the same launch
        args.teacher_table = needed_.tables[other].data<float>();
      }
    }
    kernels::image_batch(context_of(options_.device), args);
  }
}

/// See DeviceFeed.
class ImageFeed : public DeviceFeed {
 public:
  explicit ImageFeed(std::shared_ptr<const ImageSource> source)
      : DeviceFeed(source), images_(std::move(source)) {
    static_assert(sizeof(FeedCursor) == sizeof(kernels::ImageCursor));
  }

  Batch make(const Tensor& cursor, std::int64_t rows,
             std::span<const std::size_t> readings) const override {
    check_cursor(cursor, rows);
    kernels::ImageBatchArgs args{};
    args.batch = rows;
    args.order = order_on_device();
    args.cursor = static_cast<const kernels::ImageCursor*>(cursor.raw());
    args.pad = images_->crop_flip_ ? ImageSource::kPad : -1;
    Batch batch;
    images_->launch(args, readings, &batch);
    return batch;
  }

 private:
  std::shared_ptr<const ImageSource> images_;
};

std::unique_ptr<DeviceFeed> ImageSource::device_feed() const {
  return std::make_unique<ImageFeed>(
      std::static_pointer_cast<const ImageSource>(shared_from_this()));
}

}  // namespace retort::nn
