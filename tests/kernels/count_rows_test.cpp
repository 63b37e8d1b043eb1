#include "kernels/count_rows/count_rows.h"

#include <gtest/gtest.h>

#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

float count(const Tensor& targets, const Tensor& mask, Device device, std::int32_t ignore = -100) {
  const Tensor t = targets.to(device), m = mask.defined() ? mask.to(device) : Tensor(),
               z = Tensor::full({2}, -7, DType::kF32, device);
  kernels::CountRowsArgs args;
  args.targets = t.numel() > 0 ? t.data<std::int32_t>() : nullptr;
  args.mask = m.defined() && m.numel() > 0 ? m.data<std::uint8_t>() : nullptr;
  args.ignore_index = ignore;
  args.rows = t.numel();
  args.count = z.data<float>();
  kernels::count_rows(context_of(device), args);
  EXPECT_EQ(z.to_vector<float>()[1], -7) << "wrote beyond the count";
  return z.to_vector<float>()[0];
}

TEST(CountRows, hand_checked_numbers) {
  const Tensor targets = Tensor::from<std::int32_t>({3, -100, 0, -100, 7}, {5});
  const Tensor mask = Tensor::from<std::uint8_t>({1, 1, 0, 0, 2}, {5});
  for (const Device device : devices()) {
    EXPECT_EQ(count(targets, {}, device), 3);
    EXPECT_EQ(count(targets, mask, device), 2);
    EXPECT_EQ(count(targets, {}, device, 7), 4);
  }
}

TEST(CountRows, every_size_at_the_edges_of_a_block) {
  for (const Device device : devices())
    for (const std::int64_t n : {0, 1, 7, 255, 256, 257, 1000, 4097}) {
      const Tensor targets = randint({n}, 5, 3), mask = randint({n}, 6, 2).to(DType::kU8);
      const auto t = targets.to_vector<std::int32_t>();
      const auto m = mask.to_vector<std::uint8_t>();
      int all = 0, masked = 0;
      for (std::size_t i = 0; i < t.size(); ++i) {
        all += t[i] != 1;
        masked += t[i] != 1 && m[i] != 0;
      }
      EXPECT_EQ(count(targets, {}, device, 1), static_cast<float>(all)) << n;
      EXPECT_EQ(count(targets, mask, device, 1), static_cast<float>(n > 0 ? masked : 0)) << n;
    }
}

TEST(CountRows, errors) {
  float z = 0;
  const Context context = context_of(Device::kCpu);
  EXPECT_THROW(kernels::count_rows(context, {nullptr, nullptr, -100, 1, &z}), Error);
  EXPECT_THROW(kernels::count_rows(context, {nullptr, nullptr, -100, -1, &z}), Error);
  EXPECT_THROW(kernels::count_rows(context, {nullptr, nullptr, -100, 0, nullptr}), Error);
  EXPECT_NO_THROW(kernels::count_rows(context, {nullptr, nullptr, -100, 0, &z}));
  EXPECT_EQ(z, 0);
}

}  // namespace
}  // namespace retort::test
