#include "nn/data/device_feed.h"

#include <atomic>

#include "engine/runtime/allocator.h"

namespace retort::nn {

namespace {

std::uint64_t next_id() {
  static std::atomic<std::uint64_t> made = 0;
  return ++made;
}

}  // namespace

DeviceFeed::DeviceFeed(std::shared_ptr<const Source> source)
    : source_(std::move(source)), id_(next_id()) {
  RETORT_CHECK(source_ != nullptr, "[device_feed] expected a source");
}

void DeviceFeed::set_order(std::span<const std::int64_t> samples) {
  const std::int64_t count = source_->facts().indices();
  std::vector<std::int32_t> words;
  words.reserve(samples.size());
  for (const std::int64_t s : samples) {
    RETORT_CHECK(s >= 0 && s < count && s <= 0xffffffff, "[device_feed] expected a sample in [0, ",
                 count, "), got ", s);
    words.push_back(static_cast<std::int32_t>(static_cast<std::uint32_t>(s)));
  }
  const auto n = static_cast<std::int64_t>(words.size());
  const MemoryRoleScope role(MemoryRole::kData);
  if (!device_order_.defined() || device_order_.numel() < n)
    device_order_ = Tensor::empty({n}, DType::kI32, source_->device());
  device_order_.slice(0, n).copy_from(Tensor::from(words, {n}));
  ++uploads_;
  epoch_ = -1;
  order_.assign(samples.begin(), samples.end());
}

FeedBatch DeviceFeed::place(const BatchPlan& plan, std::int64_t steps_per_epoch,
                            std::int64_t step) {
  RETORT_CHECK(step >= 0 && steps_per_epoch >= 1,
               "[device_feed] expected a step >= 0 and at least one step per epoch, got ", step,
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

std::optional<FeedBatch> DeviceFeed::place(std::int64_t step) const {
  const std::int64_t at = step - epoch_begin_;
  if (epoch_ < 0 || at < 0 || at + 1 >= static_cast<std::int64_t>(begins_.size()))
    return std::nullopt;
  const std::int64_t begin = begins_[static_cast<std::size_t>(at)];
  return FeedBatch{begin, begins_[static_cast<std::size_t>(at) + 1] - begin, epoch_,
                   source_->options().seed};
}

void DeviceFeed::check_cursor(const Tensor& cursor, std::int64_t rows) const {
  RETORT_CHECK(device_order_.defined() && rows <= device_order_.numel(),
               "[device_feed] expected an order of at least ", rows, " samples");
  RETORT_CHECK(cursor.bytes() == sizeof(FeedCursor) && cursor.device() == source_->device(),
               "[device_feed] expected a cursor of ", sizeof(FeedCursor), " bytes on ",
               name_of(source_->device()), ", got ", cursor.bytes(), " on ",
               name_of(cursor.device()));
}

const std::uint32_t* DeviceFeed::order_on_device() const {
  return reinterpret_cast<const std::uint32_t*>(device_order_.data<std::int32_t>());
}

std::span<const std::int64_t> DeviceFeed::samples_of(const FeedBatch& batch) const {
  RETORT_CHECK(batch.begin >= 0 && batch.rows >= 0 &&
                   batch.begin + batch.rows <= static_cast<std::int64_t>(order_.size()),
               "[device_feed] expected a batch within an order of ", order_.size(), ", got rows ",
               batch.begin, " to ", batch.begin + batch.rows);
  RETORT_CHECK(batch.seed == source_->options().seed, "[device_feed] expected a batch of seed ",
               source_->options().seed, ", got one of ", batch.seed);
  return {order_.begin() + batch.begin, order_.begin() + batch.begin + batch.rows};
}

Batch DeviceFeed::host_batch(const FeedBatch& batch) const {
  return source_->make(samples_of(batch), static_cast<std::uint32_t>(batch.epoch));
}

DeviceFeed::Names DeviceFeed::names(const FeedBatch& batch) const {
  const std::span<const std::int64_t> samples = samples_of(batch);
  return {samples, source_->variants(samples, static_cast<std::uint32_t>(batch.epoch))};
}

}  // namespace retort::nn
