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
  order_.assign(samples.begin(), samples.end());
}

Tensor ImageFeed::empty(std::int64_t rows) const {
  const Shape shape = dataset_->input_shape();
  return Tensor::empty({rows, shape[0], shape[1], shape[2]}, options_.dtype, options_.device);
}

kernels::ImageBatchArgs ImageFeed::arguments(const Tensor& cursor, std::int64_t rows) const {
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
  args.dtype = options_.dtype;
  args.order = reinterpret_cast<const std::uint32_t*>(device_order_.data<std::int32_t>());
  args.cursor = static_cast<const Cursor*>(cursor.raw());
  args.pad = options_.augment == Augment::kCropFlip ? ImageDataset::kPad : -1;
  return args;
}

ImageFeed::Images ImageFeed::make(const Tensor& cursor, std::int64_t rows, bool for_teacher) const {
  kernels::ImageBatchArgs args = arguments(cursor, rows);
  Images images{empty(rows), {}, Tensor::empty({rows}, DType::kI32, options_.device)};
  images.teacher_inputs = images.inputs;
  args.output = images.inputs.raw();
  args.targets = images.targets.data<std::int32_t>();
  if (for_teacher && needed_.teacher_table.defined()) {
    images.teacher_inputs = empty(rows);
    args.teacher_table = needed_.teacher_table.data<float>();
    args.teacher_output = images.teacher_inputs.raw();
  }
  kernels::image_batch(context_of(options_.device), args);
  return images;
}

Tensor ImageFeed::make_for_teacher(const Tensor& cursor, std::int64_t rows) const {
  kernels::ImageBatchArgs args = arguments(cursor, rows);
  const Tensor inputs = empty(rows);
  args.output = inputs.raw();
  if (needed_.teacher_table.defined()) args.table = needed_.teacher_table.data<float>();
  kernels::image_batch(context_of(options_.device), args);
  return inputs;
}

}  // namespace retort::nn
