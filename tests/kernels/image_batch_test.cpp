#include "kernels/image_batch/image_batch.h"

#include <gtest/gtest.h>

#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using kernels::AugmentKey;

struct Made {
  Tensor output, teacher, targets;
};

Made run(Device device, DType dtype, std::int64_t channels, std::int64_t height, std::int64_t width,
         const std::vector<std::int64_t>& entries) {
  const std::int64_t count = 5, rows = static_cast<std::int64_t>(entries.size());
  const Tensor images = randint({count, channels, height, width}, 1, 256).to(DType::kU8).to(device);
  const Tensor labels = Tensor::from<std::int32_t>({7, 1, 8, 2, 9}, {count}, device);
  const Tensor table = randn({channels, 256}, 2).to(device);
  const Tensor teacher_table = randn({channels, 256}, 3).to(device);
  const Tensor list = Tensor::from(entries, {rows}, device);
  Made m{Tensor::empty({rows, height, width, channels}, dtype, device),
         Tensor::empty({rows, height, width, channels}, dtype, device),
         Tensor::empty({rows}, DType::kI32, device)};
  kernels::image_batch(
      context_of(device),
      {images.data<std::uint8_t>(), labels.data<std::int32_t>(), list.data<std::int64_t>(),
       table.data<float>(), teacher_table.data<float>(), m.output.raw(), m.teacher.raw(),
       m.targets.data<std::int32_t>(), rows, count, channels, height, width, dtype});
  return m;
}

std::int64_t entry(std::int64_t sample, bool flip, int dy, int dx) {
  return sample | static_cast<std::int64_t>(AugmentKey::pack(flip, dy, dx).bits) << 32;
}

TEST(ImageBatch, hand_checked_crop_and_flip) {
  for (const Device device : devices()) {
    // One 2 x 3 image of one channel: {1 2 3} {4 5 6}; the table keeps pixel values.
    const Tensor images = Tensor::from<std::uint8_t>({1, 2, 3, 4, 5, 6}, {1, 1, 2, 3}, device);
    const Tensor labels = Tensor::from<std::int32_t>({3}, {1}, device);
    std::vector<float> identity(256);
    for (std::size_t i = 0; i < 256; ++i) identity[i] = static_cast<float>(i);
    const Tensor table = Tensor::from(identity, {1, 256}, device);
    const Tensor list = Tensor::from<std::int64_t>(
        {entry(0, false, 0, 0), entry(0, true, 0, 0), entry(0, false, 1, -1), entry(0, true, 0, 1)},
        {4}, device);
    const Tensor out = Tensor::empty({4, 2, 3, 1}, DType::kF32, device);
    const Tensor targets = Tensor::empty({4}, DType::kI32, device);
    kernels::image_batch(context_of(device),
                         {images.data<std::uint8_t>(), labels.data<std::int32_t>(),
                          list.data<std::int64_t>(), table.data<float>(), nullptr, out.raw(),
                          nullptr, targets.data<std::int32_t>(), 4, 1, 1, 2, 3, DType::kF32});
    EXPECT_EQ(out.to_vector<float>(),
              (std::vector<float>{1, 2, 3, 4, 5, 6,    // as stored
                                  3, 2, 1, 6, 5, 4,    // flipped
                                  0, 4, 5, 0, 0, 0,    // one down, one left: zeros come in
                                  0, 3, 2, 0, 6, 5}))  // cropped one to the right, then flipped
        << name_of(device);
    EXPECT_EQ(targets.to_vector<std::int32_t>(), (std::vector<std::int32_t>{3, 3, 3, 3}));
  }
}

TEST(ImageBatch, every_device_gives_the_same_bytes) {
  if (kernels::image_batch_cuda == nullptr)
    GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  std::vector<std::int64_t> entries;
  for (int b = 0; b < 7; ++b) entries.push_back(entry(b % 5, b % 2, b - 3, 4 - b));
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
    for (const std::int64_t channels : {1, 3, 4})
      for (const std::int64_t size : {1, 5, 32}) {
        const Made cpu = run(Device::kCpu, dtype, channels, size, size + 1, entries);
        const Made cuda = run(Device::kCuda, dtype, channels, size, size + 1, entries);
        EXPECT_TRUE(same_bytes(cuda.output, cpu.output)) << name_of(dtype) << channels << size;
        EXPECT_TRUE(same_bytes(cuda.teacher, cpu.teacher)) << name_of(dtype) << channels << size;
        EXPECT_TRUE(same_bytes(cuda.targets, cpu.targets));
      }
}

TEST(ImageBatch, keys_are_uniform_and_depend_on_seed_epoch_and_sample) {
  int flips = 0, places[9] = {}, columns[9] = {};
  for (std::uint32_t sample = 0; sample < 9000; ++sample) {
    const AugmentKey key = kernels::crop_flip_key(1, 2, sample, 4);
    flips += key.flip();
    ASSERT_TRUE(key.dy() >= -4 && key.dy() <= 4 && key.dx() >= -4 && key.dx() <= 4);
    ++places[key.dy() + 4], ++columns[key.dx() + 4];
  }
  EXPECT_NEAR(flips, 4500, 4 * 48);  // 4 standard deviations
  for (int i = 0; i < 9; ++i) {
    EXPECT_NEAR(places[i], 1000, 4 * 30);
    EXPECT_NEAR(columns[i], 1000, 4 * 30);
  }
  int same = 0;
  for (std::uint32_t sample = 0; sample < 1000; ++sample) {
    const std::uint32_t bits = kernels::crop_flip_key(1, 2, sample, 4).bits;
    EXPECT_EQ(bits, kernels::crop_flip_key(1, 2, sample, 4).bits);
    same += bits == kernels::crop_flip_key(1, 3, sample, 4).bits;
    same += bits == kernels::crop_flip_key(2, 2, sample, 4).bits;
  }
  EXPECT_LT(same, 40);  // expected 2000 / 162
}

TEST(ImageBatch, null_pointers_throw) {
  kernels::ImageBatchArgs args{};
  args.batch = args.count = args.channels = args.height = args.width = 1;
  EXPECT_THROW(kernels::image_batch(context_of(Device::kCpu), args), Error);
}

}  // namespace
}  // namespace retort::test
