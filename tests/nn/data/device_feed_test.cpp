#include "nn/data/device_feed.h"

#include <gtest/gtest.h>

#include <cstring>

#include "nn/data/image_dataset.h"
#include "nn/data/parity.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::nn {
namespace {

using test::devices;
using test::randint;
using test::same_bytes;

std::shared_ptr<ImageDataset> dataset(std::int64_t count = 30) {
  std::vector<std::int32_t> labels;
  for (std::int64_t i = 0; i < count; ++i) labels.push_back(static_cast<std::int32_t>(i % 10));
  return std::make_shared<ImageDataset>(randint({count, 3, 9, 8}, 1, 256).to(DType::kU8), labels,
                                        10, "test");
}

Tensor cursor_of(const FeedBatch& b, Device device) {
  const FeedCursor cursor{b.begin, b.epoch, b.seed};
  std::vector<std::uint8_t> bytes(sizeof cursor);
  std::memcpy(bytes.data(), &cursor, sizeof cursor);
  return Tensor::from(bytes, {static_cast<std::int64_t>(sizeof cursor)}, device);
}

constexpr std::size_t kBoth[] = {0, 1};
constexpr std::size_t kStudent[] = {0};
constexpr std::size_t kTeacher[] = {1};

TEST(ImageFeed, gives_the_bytes_of_make) {
  const auto data = dataset();
  for (const Device device : devices())
    for (const char* augment : {"none", "crop_flip"})
      for (const auto& [dtype, teacher_dtype] :
           {std::pair{DType::kF32, DType::kF32}, {DType::kBF16, DType::kF32}})
        for (const bool own : {false, true}) {
          SourceOptions o{.device = device, .treatment = {{"augment", augment}}};
          o.readings = {Reading{dtype}, Reading{teacher_dtype}};
          if (own) o.readings[1].options.set("normalize", "imagenet");
          const auto feed = data->source(o)->device_feed();
          std::vector<std::int64_t> order;
          for (std::int64_t i = 0; i < 25; ++i) order.push_back(i * 11 % 30);
          feed->set_order(order);
          for (const FeedBatch& b : {FeedBatch{0, 7, 0, 3},
                                     {7, 7, 0, 3},
                                     {18, 7, 1, 3},
                                     {4, 1, 1, std::uint64_t{1} << 40}}) {
            o.seed = b.seed;  // the cursor's seed decides, not that of the source behind the feed
            const auto host = data->source(o)->device_feed();
            host->set_order(order);
            const Batch want = host->host_batch(b);
            EXPECT_EQ(want.sample[0], order[static_cast<std::size_t>(b.begin)]);
            const DeviceFeed::Names names = host->names(b);
            EXPECT_TRUE(std::equal(names.samples.begin(), names.samples.end(), want.sample.begin(),
                                   want.sample.end()));
            EXPECT_EQ(names.variants, want.variant);
            const Tensor cursor = cursor_of(b, device);
            const Batch got = feed->make(cursor, b.rows, kBoth);
            EXPECT_TRUE(same_bytes(got.inputs[0].values, want.inputs[0].values)) << name_of(device);
            EXPECT_TRUE(same_bytes(got.inputs[1].values, want.inputs[1].values));
            EXPECT_TRUE(same_bytes(got.targets, want.targets));
            EXPECT_EQ(got.inputs[1].values.storage() == got.inputs[0].values.storage(),
                      !own && dtype == teacher_dtype);
            // What nobody asks for is not made.
            const Batch taught = feed->make(cursor, b.rows, kTeacher);
            EXPECT_TRUE(same_bytes(taught.inputs[1].values, want.inputs[1].values));
            EXPECT_FALSE(taught.inputs[0].defined());
            const Batch alone = feed->make(cursor, b.rows, kStudent);
            EXPECT_TRUE(same_bytes(alone.inputs[0].values, want.inputs[0].values));
            EXPECT_EQ(alone.inputs[0].values.dtype(), dtype);
            EXPECT_FALSE(alone.inputs[1].defined());
          }
        }
}

TEST(ImageFeed, uploads_an_epochs_order_once_to_memory_that_stays) {
  for (const Device device : devices()) {
    const auto feed = dataset()->source({.device = device, .seed = 5})->device_feed();
    const BatchPlan plan = [](std::int64_t step) {  // epochs of 3 steps: 8, 8 and 4 samples
      std::vector<std::int64_t> samples;
      for (std::int64_t i = 0; i < (step % 3 == 2 ? 4 : 8); ++i)
        samples.push_back((step * 8 + i) % 30);
      return samples;
    };
    EXPECT_FALSE(feed->place(0));
    const FeedBatch first = feed->place(plan, 3, 0);
    const void* const address = feed->address();
    EXPECT_EQ(first, (FeedBatch{0, 8, 0, 5}));
    EXPECT_EQ(feed->place(plan, 3, 2), (FeedBatch{16, 4, 0, 5}));
    EXPECT_EQ(*feed->place(1), (FeedBatch{8, 8, 0, 5}));
    EXPECT_FALSE(feed->place(3));  // the next epoch's, not uploaded yet
    EXPECT_EQ(feed->uploads(), 1);
    // A run that is resumed begins in the middle of an epoch.
    EXPECT_EQ(feed->place(plan, 3, 7), (FeedBatch{8, 8, 2, 5}));
    EXPECT_EQ(feed->order()[8], 56 % 30);
    EXPECT_EQ(feed->uploads(), 2);
    EXPECT_EQ(feed->address(), address);
    feed->set_order(std::vector<std::int64_t>{1, 2});  // shorter: the same memory
    EXPECT_EQ(feed->address(), address);
    EXPECT_FALSE(feed->place(7));
  }
}

TEST(ImageFeed, errors) {
  const auto feed = dataset()->source({})->device_feed();
  const Tensor cursor = cursor_of({0, 1, 0, 0}, Device::kCpu);
  EXPECT_THROW(feed->make(cursor, 1, kStudent), Error);  // no order
  EXPECT_THROW(feed->set_order(std::vector<std::int64_t>{30}), Error);
  feed->set_order(std::vector<std::int64_t>{3, 4});
  EXPECT_THROW(feed->make(cursor, 3, kStudent), Error);
  EXPECT_THROW(feed->make(Tensor::zeros({4}, DType::kU8), 1, kStudent), Error);
  EXPECT_NO_THROW(feed->make(cursor, 2, kStudent));
  EXPECT_THROW(feed->host_batch({1, 2, 0, 0}), Error);  // behind the order's end
  EXPECT_THROW(feed->host_batch({0, 2, 0, 9}), Error);  // another seed than the source's
  EXPECT_THROW(feed->names({0, 2, 0, 9}), Error);
  EXPECT_NO_THROW(feed->names({0, 2, 0, 0}));
}

TEST(ImageFeed, an_address_that_is_used_again_is_another_feed) {
  const auto source = dataset()->source({});
  std::uint64_t before = 0;
  for (int i = 0; i < 4; ++i) {
    const std::uint64_t id = source->device_feed()->id();
    EXPECT_GT(id, before);
    before = id;
  }
}

TEST(DeviceFeed, data_drawn_on_the_host_has_none) {
  const auto data = std::make_shared<ParityDataset>(ParityOptions{.n = 8, .k = 2, .size = 4});
  EXPECT_EQ(data->source({})->device_feed(), nullptr);
}

}  // namespace
}  // namespace retort::nn
