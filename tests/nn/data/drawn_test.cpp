#include "nn/data/drawn.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace retort::nn {
namespace {

TEST(DrawnSamples, stand_for_the_whole) {
  const auto some = drawn_samples(1000, 100, 7, "test");
  ASSERT_EQ(some.size(), 100u);
  EXPECT_TRUE(std::is_sorted(some.begin(), some.end()));
  EXPECT_EQ(std::adjacent_find(some.begin(), some.end()), some.end());  // each once
  EXPECT_GE(some.front(), 0);
  EXPECT_LT(some.back(), 1000);
  // Each fifth of the whole has about its share.
  for (std::int64_t part = 0; part < 5; ++part) {
    const auto of_part =
        std::count_if(some.begin(), some.end(), [&](std::int64_t i) { return i / 200 == part; });
    EXPECT_GT(of_part, 8) << part;
    EXPECT_LT(of_part, 36) << part;
  }
  EXPECT_EQ(drawn_samples(1000, 100, 7, "test"), some);
  EXPECT_NE(drawn_samples(1000, 100, 8, "test"), some);
  EXPECT_NE(drawn_samples(1000, 100, 7, "other"), some);
  std::vector<std::int64_t> all(10);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(drawn_samples(10, 10, 7, "test"), all);
  EXPECT_EQ(drawn_samples(10, 11, 7, "test"), all);
}

}  // namespace
}  // namespace retort::nn
