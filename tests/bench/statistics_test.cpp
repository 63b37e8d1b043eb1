// Medians, spread, and intervals of ratios.
#include "bench/harness/statistics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/common/philox.h"

namespace retort::bench {
namespace {

// `n` times around 1 ms with the long right tail that timings have; `scale` multiplies them.
Block timings(std::size_t n, std::uint64_t seed, double scale) {
  Block block;
  for (std::uint32_t i = 0; i < n; ++i) {
    const double u = static_cast<double>(uniform01(philox(seed, i, 0, 0, 0).v[0]));
    block.push_back(scale * (1 - 0.05 * std::log(1 - u)));
  }
  return block;
}

TEST(Statistics, QuantilesByHand) {
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
  EXPECT_EQ(quantile({0, 10}, 0.25), 2.5);
  EXPECT_EQ(median_absolute_deviation({1, 2, 3, 4, 100}), 1);
  EXPECT_TRUE(std::isnan(median({})));
}

TEST(BootstrapRatio, HoldsTheTrueRatioAndNarrowsWithMoreSamples) {
  const Ratio few = bootstrap_ratio({timings(20, 1, 1)}, {timings(20, 2, 1.3)});
  const Ratio many = bootstrap_ratio({timings(400, 3, 1)}, {timings(400, 4, 1.3)});
  EXPECT_LT(few.low, 1.3);
  EXPECT_GT(few.high, 1.3);
  EXPECT_LT(many.low, 1.3);
  EXPECT_GT(many.high, 1.3);
  EXPECT_LT(many.high - many.low, (few.high - few.low) / 2);
}

// A machine that drifts between blocks must not look like a change of the program: the same samples
// as one long block would claim certainty.
TEST(BootstrapRatio, DriftBetweenBlocksWidensTheInterval) {
  Blocks a, b;
  for (std::uint64_t i = 0; i < 4; ++i) {
    a.push_back(timings(100, 10 + i, 1 + 0.1 * static_cast<double>(i % 2)));
    b.push_back(timings(100, 20 + i, 1 + 0.1 * static_cast<double>(i / 2 % 2)));
  }
  const Ratio blocks = bootstrap_ratio(a, b), flat = bootstrap_ratio({joined(a)}, {joined(b)});
  EXPECT_GT(blocks.high - blocks.low, 2 * (flat.high - flat.low));
  EXPECT_LT(blocks.low, 1);
  EXPECT_GT(blocks.high, 1);
}

TEST(BootstrapRatio, EmptyBlocksCountAsAbsent) {
  const Block block = timings(50, 1, 1), other = timings(50, 2, 1.3);
  const Ratio with = bootstrap_ratio({block, {}}, {{}, other}),
              without = bootstrap_ratio({block}, {other});
  EXPECT_EQ(with.low, without.low);
  EXPECT_EQ(with.high, without.high);
  EXPECT_TRUE(std::isnan(bootstrap_ratio({{}}, {other}).value));
}

TEST(BootstrapRatio, IsDeterministic) {
  const Ratio x = bootstrap_ratio({timings(50, 1, 1)}, {timings(50, 2, 1)});
  const Ratio y = bootstrap_ratio({timings(50, 1, 1)}, {timings(50, 2, 1)});
  EXPECT_EQ(x.low, y.low);
  EXPECT_EQ(x.high, y.high);
}

}  // namespace
}  // namespace retort::bench
