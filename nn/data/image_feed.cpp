#include "nn/data/image_feed.h"

#include "engine/runtime/allocator.h"
#include "engine/runtime/device.h"

namespace retort::nn {

ImageFeed::ImageFeed(std::shared_ptr<const ImageDataset> dataset, BatchOptions options)
    : dataset_(std::move(dataset)), options_(std::move(options)) {
  RETORT_CHECK(dataset_ != nullptr, "[image_feed] expected a dataset");
  needed_ = dataset_->needed(options_);
}

void ImageFeed::set_order(std::span<const std::int64_t> samples) {
  dataset_->check_samples(samples);
  std::vector<std::int32_t> words;
  words.reserve(samples.size());
  for (const std::int64_t s : samples)
    words.push_back(static_cast<std::int32_t>(static_cast<std::uint32_t>(s)));
  const auto n = static_cast<std::int64_t>(words.size());
  const MemoryRoleScope role(MemoryRole::kData);
  if (!device_order_.defined() || device_order_.numel() < n)
    device_order_ = Tensor::empty({n}, DType::kI32, options_.device);
  device_order_.slice(0, n).copy_from(Tensor::from(words, {n}));
  ++uploads_;
  epoch_ = -1;
  order_.assign(samples.begin(), samples.end());
}

FeedBatch ImageFeed::place(const Plan& plan, std::int64_t steps_per_epoch, std::int64_t step) {
  RETORT_CHECK(step >= 0 && steps_per_epoch >= 1,
               "[image_feed] expected a step >= 0 and at least one step per epoch, got ", step,
               " and ", steps_per_epoch);
  const std::int64_t epoch = step / steps_per_epoch;
  if (epoch_ != epoch) {
    std::vector<std::int64_t> samples, begins{0};
    for (std::int64_t s = epoch * steps_per_epoch; s < (epoch + 1) * steps_per_epoch; ++s) {
      const std::vector<std::int64_t> batch = plan(s);
      samples.insert(samples.end(), batch.begin(), batch.end());
      begins.push_back(static_cast<std::int64_t>(samples.size()));
    }
    set_order(samples);
    epoch_ = epoch;
    epoch_begin_ = epoch * steps_per_epoch;
    begins_ = std::move(begins);
  }
  return *place(step);
}

std::optional<FeedBatch> ImageFeed::place(std::int64_t step) const {
  const std::int64_t at = step - epoch_begin_;
  if (epoch_ < 0 || at < 0 || at + 1 >= static_cast<std::int64_t>(begins_.size()))
    return std::nullopt;
  const std::int64_t begin = begins_[static_cast<std::size_t>(at)];
  return FeedBatch{begin, begins_[static_cast<std::size_t>(at) + 1] - begin, epoch_, options_.seed};
}

Tensor ImageFeed::empty(std::int64_t rows, DType dtype) const {
  const Shape shape = dataset_->input_shape();
  return Tensor::empty({rows, shape[0], shape[1], shape[2]}, dtype, options_.device);
}

kernels::ImageBatchArgs ImageFeed::arguments(const Tensor& cursor, std::int64_t rows,
                                             DType dtype) const {
  RETORT_CHECK(device_order_.defined() && rows <= device_order_.numel(),
               "[image_feed] expected an order of at least ", rows, " samples");
  RETORT_CHECK(cursor.bytes() == sizeof(Cursor) && cursor.device() == options_.device,
               "[image_feed] expected a cursor of ", sizeof(Cursor), " bytes on ",
               name_of(options_.device), ", got ", cursor.bytes(), " on ",
               name_of(cursor.device()));
  const Shape shape = dataset_->input_shape();
  kernels::ImageBatchArgs args{};
  args.images = needed_.images.data<std::uint8_t>();
  args.labels = needed_.labels.data<std::int32_t>();
  args.table = needed_.table.data<float>();
  args.batch = rows;
  args.count = dataset_->size();
  args.channels = shape[2];
  args.height = shape[0];
  args.width = shape[1];
  args.dtype = dtype;
  args.order = reinterpret_cast<const std::uint32_t*>(device_order_.data<std::int32_t>());
  args.cursor = static_cast<const Cursor*>(cursor.raw());
  args.pad = options_.augment == Augment::kCropFlip ? ImageDataset::kPad : -1;
  return args;
}

ImageFeed::Images ImageFeed::make(const Tensor& cursor, std::int64_t rows, bool for_teacher) const {
  const DType dtype = options_.dtype;
  kernels::ImageBatchArgs args = arguments(cursor, rows, dtype);
  Images images{empty(rows, dtype), {}, Tensor::empty({rows}, DType::kI32, options_.device)};
  images.teacher_inputs = images.inputs;
  args.output = images.inputs.raw();
  args.targets = images.targets.data<std::int32_t>();
  const bool two_launches = for_teacher && teacher_dtype() != dtype;
  if (for_teacher && !two_launches && needed_.teacher_table.defined()) {
    images.teacher_inputs = empty(rows, dtype);
    args.teacher_table = needed_.teacher_table.data<float>();
    args.teacher_output = images.teacher_inputs.raw();
  }
  kernels::image_batch(context_of(options_.device), args);
  if (two_launches) images.teacher_inputs = make_for_teacher(cursor, rows);
  return images;
}

Tensor ImageFeed::make_for_teacher(const Tensor& cursor, std::int64_t rows) const {
  kernels::ImageBatchArgs args = arguments(cursor, rows, teacher_dtype());
  const Tensor inputs = empty(rows, teacher_dtype());
  args.output = inputs.raw();
  if (needed_.teacher_table.defined()) args.table = needed_.teacher_table.data<float>();
  kernels::image_batch(context_of(options_.device), args);
  return inputs;
}

BatchOptions ImageFeed::options_of(const FeedBatch& batch) const {
  BatchOptions options = options_;
  options.seed = batch.seed;
  options.epoch = static_cast<std::uint32_t>(batch.epoch);
  return options;
}

Batch ImageFeed::host_batch(const FeedBatch& batch) const {
  const auto begin = order_.begin() + batch.begin;
  return dataset_->make_batch({begin, begin + batch.rows}, options_of(batch));
}

ImageFeed::Names ImageFeed::names(const FeedBatch& batch) const {
  const auto begin = order_.begin() + batch.begin;
  const std::span<const std::int64_t> samples(begin, begin + batch.rows);
  return {samples, ImageDataset::augment_keys(samples, options_of(batch))};
}

}  // namespace retort::nn
