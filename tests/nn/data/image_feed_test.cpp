#include "nn/data/image_feed.h"

#include <gtest/gtest.h>

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
  const ImageFeed::Cursor cursor{b.begin, b.epoch, b.seed};
  std::vector<std::uint8_t> bytes(sizeof cursor);
  std::memcpy(bytes.data(), &cursor, sizeof cursor);
  return Tensor::from(bytes, {static_cast<std::int64_t>(sizeof cursor)}, device);
}

TEST(ImageFeed, gives_the_bytes_of_make_batch) {
  const auto data = dataset();
  for (const Device device : devices())
    for (const Augment augment : {Augment::kNone, Augment::kCropFlip})
      for (const auto& [dtype, teacher_dtype] :
           {std::pair{DType::kF32, DType::kF32}, {DType::kBF16, DType::kF32}})
        for (const bool own : {false, true}) {
          BatchOptions o;
          o.device = device;
          o.augment = augment;
          o.dtype = dtype;
          o.teacher_dtype = teacher_dtype;
          if (own) o.teacher_normalize = Normalize::named("imagenet");
          ImageFeed feed(data, o);
          std::vector<std::int64_t> order;
          for (std::int64_t i = 0; i < 25; ++i) order.push_back(i * 11 % 30);
          feed.set_order(order);
          for (const FeedBatch& b : {FeedBatch{0, 7, 0, 3},
                                     {7, 7, 0, 3},
                                     {18, 7, 1, 3},
                                     {4, 1, 1, std::uint64_t{1} << 40}}) {
            const Batch want = feed.host_batch(b);
            EXPECT_EQ(want.sample[0], order[static_cast<std::size_t>(b.begin)]);
            const Tensor cursor = cursor_of(b, device);
            const ImageFeed::Images got = feed.make(cursor, b.rows);
            EXPECT_TRUE(same_bytes(got.inputs, want.inputs)) << name_of(device);
            EXPECT_TRUE(same_bytes(got.teacher_inputs, want.teacher_inputs));
            EXPECT_TRUE(same_bytes(got.targets, want.targets));
            EXPECT_TRUE(same_bytes(feed.make_for_teacher(cursor, b.rows), want.teacher_inputs));
            EXPECT_EQ(got.teacher_inputs.storage() == got.inputs.storage(),
                      !own && dtype == teacher_dtype);
            EXPECT_EQ(feed.make(cursor, b.rows, false).teacher_inputs.dtype(), dtype);
          }
        }
}

TEST(ImageFeed, uploads_an_epochs_order_once_to_memory_that_stays) {
  for (const Device device : devices()) {
    BatchOptions o;
    o.device = device;
    o.seed = 5;
    ImageFeed feed(dataset(), o);
    const ImageFeed::Plan plan = [](std::int64_t step) {  // epochs of 3 steps: 8, 8 and 4 samples
      std::vector<std::int64_t> samples;
      for (std::int64_t i = 0; i < (step % 3 == 2 ? 4 : 8); ++i)
        samples.push_back((step * 8 + i) % 30);
      return samples;
    };
    EXPECT_FALSE(feed.place(0));
    const FeedBatch first = feed.place(plan, 3, 0);
    const void* const address = feed.address();
    EXPECT_EQ(first, (FeedBatch{0, 8, 0, 5}));
    EXPECT_EQ(feed.place(plan, 3, 2), (FeedBatch{16, 4, 0, 5}));
    EXPECT_EQ(*feed.place(1), (FeedBatch{8, 8, 0, 5}));
    EXPECT_FALSE(feed.place(3));  // the next epoch's, not uploaded yet
    EXPECT_EQ(feed.uploads(), 1);
    // A run that is resumed begins in the middle of an epoch.
    EXPECT_EQ(feed.place(plan, 3, 7), (FeedBatch{8, 8, 2, 5}));
    EXPECT_EQ(feed.order()[8], 56 % 30);
    EXPECT_EQ(feed.uploads(), 2);
    EXPECT_EQ(feed.address(), address);
    feed.set_order(std::vector<std::int64_t>{1, 2});  // shorter: the same memory
    EXPECT_EQ(feed.address(), address);
    EXPECT_FALSE(feed.place(7));
  }
}

TEST(ImageFeed, errors) {
  ImageFeed feed(dataset(), {});
  const Tensor cursor = cursor_of({0, 1, 0, 0}, Device::kCpu);
  EXPECT_THROW(feed.make(cursor, 1), Error);  // no order
  EXPECT_THROW(feed.set_order(std::vector<std::int64_t>{30}), Error);
  feed.set_order(std::vector<std::int64_t>{3, 4});
  EXPECT_THROW(feed.make(cursor, 3), Error);
  EXPECT_THROW(feed.make(Tensor::zeros({4}, DType::kU8), 1), Error);
  EXPECT_NO_THROW(feed.make(cursor, 2));
}

}  // namespace
}  // namespace retort::nn
