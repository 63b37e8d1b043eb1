#include "nn/optim/slice_sum.h"

#include <gtest/gtest.h>

#include "tests/support/close.h"
#include "tests/support/error_of.h"
#include "tests/support/random.h"

namespace retort::nn {
namespace {

using test::devices;
using test::error_of;
using test::randn;

constexpr std::int64_t kN = 70;

// Values of one size: most orders of adding them have bits of their own.
Tensor slice_values(std::int64_t s, Device device = Device::kCpu) {
  return randn({kN}, static_cast<std::uint64_t>(s) + 1).to(device);
}

std::vector<float> added(const std::vector<float>& left, const std::vector<float>& right) {
  std::vector<float> sum(left.size());
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = left[i] + right[i];
  return sum;
}

// Node [begin, end) as the note draws it: the largest power of two below its size goes left.
std::vector<float> drawn(std::int64_t begin, std::int64_t end) {
  if (end - begin == 1) return slice_values(begin).to_vector<float>();
  std::int64_t left = 1;
  while (2 * left < end - begin) left *= 2;
  return added(drawn(begin, begin + left), drawn(begin + left, end));
}

std::vector<float> one_by_one(std::int64_t slices, Device device) {
  SliceSum sum(slices, slices, kN, device);
  for (std::int64_t s = 0; s < slices; ++s) sum.add(s, 1, slice_values(s, device));
  return sum.finish().to_vector<float>();
}

TEST(SliceSum, slices_cover_a_batch) {
  for (const std::int64_t samples : {0, 1, 3, 6, 61, 128, 65536})
    for (const std::int64_t slices : {1, 2, 4, 6, 7, 64}) {
      std::int64_t at = 0;
      for (std::int64_t s = 0; s < slices; ++s) {
        const auto [begin, end] = slice_of(samples, slices, s);
        EXPECT_EQ(begin, at);
        EXPECT_TRUE(end - begin == samples / slices || end - begin == samples / slices + 1);
        at = end;
      }
      EXPECT_EQ(at, samples);
    }
}

TEST(SliceSum, the_tree_is_the_one_that_is_drawn) {
  for (const Device device : devices())
    for (const std::int64_t slices : {1, 2, 3, 4, 5, 6, 7, 8, 13, 16, 31})
      EXPECT_EQ(one_by_one(slices, device), drawn(0, slices)) << name_of(device) << slices;
}

TEST(SliceSum, other_orders_have_other_bits) {
  for (const std::int64_t slices : {4, 6, 8}) {
    std::vector<float> chain = slice_values(0).to_vector<float>();
    for (std::int64_t s = 1; s < slices; ++s) chain = added(chain, drawn(s, s + 1));
    EXPECT_NE(one_by_one(slices, Device::kCpu), chain) << slices;
    std::vector<float> strided = added(drawn(0, 1), drawn(slices / 2, slices / 2 + 1));
    for (std::int64_t s = 1; s < slices / 2; ++s)
      strided = added(strided, added(drawn(s, s + 1), drawn(s + slices / 2, s + slices / 2 + 1)));
    EXPECT_NE(one_by_one(slices, Device::kCpu), strided) << slices;
  }
}

// As ranks will: each adds a block of slices, whoever owns an array adds the blocks.
TEST(SliceSum, blocks_that_others_added_give_the_same_bytes) {
  for (const Device device : devices())
    for (const auto& [slices, ranks] :
         {std::pair{4, 2}, {4, 4}, {8, 2}, {8, 4}, {6, 3}, {6, 6}, {12, 3}, {12, 6}}) {
      const std::int64_t each = slices / ranks;
      SliceSum all(slices, ranks, kN, device);
      for (std::int64_t r = 0; r < ranks; ++r) {
        SliceSum own(slices, each, kN, device);
        for (std::int64_t s = r * each; s < (r + 1) * each; ++s)
          own.add(s, 1, slice_values(s, device));
        all.add(r * each, each, own.finish());
      }
      EXPECT_EQ(all.finish().to_vector<float>(), drawn(0, slices))
          << slices << " slices, " << ranks << " ranks";
    }
}

TEST(SliceSum, a_sum_can_be_begun_again) {
  SliceSum sum(4, 4, kN, Device::kCpu);
  sum.add(0, 1, slice_values(7));
  sum.clear();
  for (int round = 0; round < 2; ++round) {
    for (std::int64_t s = 0; s < 4; ++s) sum.add(s, 1, slice_values(s));
    EXPECT_EQ(sum.finish().to_vector<float>(), drawn(0, 4)) << round;
  }
}

TEST(SliceSum, what_is_no_node_is_refused) {
  SliceSum sum(6, 6, kN, Device::kCpu);
  const Tensor x = slice_values(0);
  EXPECT_THROW(sum.finish(), Error);
  EXPECT_NE(error_of([&] { sum.add(1, 2, x); }, ErrorCode::kUsage).find("slices 1 to 3 of 6"),
            std::string::npos);
  EXPECT_THROW(sum.add(0, 3, x), Error);
  EXPECT_THROW(sum.add(6, 1, x), Error);
  EXPECT_THROW(sum.add(4, 4, x), Error);  // slices 6 and 7 are not there
  EXPECT_THROW(sum.add(0, 1, Tensor::zeros({kN + 1})), Error);
  sum.add(0, 1, x);
  EXPECT_NE(error_of([&] { sum.add(2, 1, x); }, ErrorCode::kUsage).find("expected slice 1, got 2"),
            std::string::npos);
  sum.add(1, 1, x);
  sum.add(2, 1, x);
  EXPECT_THROW(sum.finish(), Error);  // three of six: nobody's block
  EXPECT_THROW(SliceSum(0, 1, kN, Device::kCpu), Error);
  EXPECT_THROW(SliceSum(4, 5, kN, Device::kCpu), Error);
  EXPECT_THROW(SliceSum(kMostSlices + 1, 1, kN, Device::kCpu), Error);
}

}  // namespace
}  // namespace retort::nn
