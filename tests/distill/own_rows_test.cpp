#include "distill/own_rows.h"

#include <gtest/gtest.h>

#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using distill::own_rows;

TEST(OwnRows, what_begins_elsewhere_is_copied_to_fresh_memory) {
  for (const Device device : devices()) {
    const std::int64_t fresh = device == Device::kCpu ? 64 : 256;
    const auto offset = [&](const Tensor& t) {
      return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(t.raw()) %
                                       static_cast<std::uintptr_t>(fresh));
    };
    const Tensor all = randn({140, 3}, 1).to(device);
    EXPECT_EQ(own_rows(all).raw(), all.raw());
    const Tensor far = all.slice(64, 70);  // 768 bytes further on
    EXPECT_EQ(own_rows(far).raw(), far.raw());
    const Tensor part = all.slice(5, 9);
    EXPECT_NE(offset(part), 0);
    const Tensor own = own_rows(part);
    EXPECT_EQ(offset(own), 0) << name_of(device);
    EXPECT_TRUE(same_bytes(own, part));
    EXPECT_FALSE(own_rows(Tensor()).defined());
    EXPECT_EQ(own_rows(all.slice(1, 1)).numel(), 0);
  }
}

TEST(OwnRows, readings_that_share_memory_still_do) {
  const Tensor x = randn({8, 3}, 1), other = randn({8, 3}, 2);
  nn::Batch batch(x, randint({8}, 3, 4));
  batch.inputs = {x, x, other, nn::Inputs()};
  batch.sample = {1, 2, 3, 4, 5, 6, 7, 8};
  const nn::Batch part = batch.slice(3, 7), own = own_rows(part);
  ASSERT_EQ(own.inputs.size(), 4u);
  EXPECT_NE(own.inputs[0].values.raw(), part.inputs[0].values.raw());
  EXPECT_EQ(own.inputs[1].values.raw(), own.inputs[0].values.raw());
  EXPECT_TRUE(same_bytes(own.inputs[2].values, part.inputs[2].values));
  EXPECT_FALSE(own.inputs[3].defined());
  EXPECT_TRUE(same_bytes(own.targets, part.targets));
  EXPECT_EQ(own.sample, part.sample);
}

}  // namespace
}  // namespace retort::test
