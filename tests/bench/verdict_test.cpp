// What compare calls slower, on simulated machines that drift between blocks.
#include "bench/harness/verdict.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "bench/harness/distributions.h"
#include "distill/metrics/students_t.h"
#include "kernels/common/philox.h"

namespace retort::bench {
namespace {

constexpr std::size_t kCases = 370;  // of a whole run

// Uniform in (0, 1), a function of the seed and its count of calls.
class Uniform {
 public:
  explicit Uniform(std::uint64_t seed) : seed_(seed) {}
  double operator()() {
    return (static_cast<double>(philox(seed_, next_++, 0, 0, path_hash("verdict")).v[0]) + 0.5) /
           4294967296.0;
  }

 private:
  std::uint64_t seed_;
  std::uint32_t next_ = 0;
};

// The speed of the machine during a block.
using Drift = double (*)(Uniform&);
double steady(Uniform&) { return 1; }
double up_to_10_percent(Uniform& u) { return 1 + 0.1 * u(); }
double up_to_20_percent(Uniform& u) { return 1 + 0.2 * u(); }
double slow_stretches(Uniform& u) { return (u() < 0.2 ? 1.3 : 1) * (1 + 0.01 * u()); }

// Samples of a block share its speed and have the long right tail of timings.
Blocks timings(Uniform& u, Drift drift, std::size_t blocks, double scale) {
  Blocks all(blocks);
  for (Block& block : all) {
    const double speed = drift(u);
    for (int i = 0; i < 9; ++i) block.push_back(scale * speed * (1 - 0.02 * std::log(u())));
  }
  return all;
}

// Case 0 is `slowdown` times slower in B; the others do not change.
Comparisons run(std::uint64_t seed, Drift drift, std::size_t blocks, double slowdown = 1,
                std::size_t cases = kCases) {
  Uniform u(seed);
  std::vector<std::pair<Blocks, Blocks>> pairs;
  for (std::size_t i = 0; i < cases; ++i) {
    Blocks before = timings(u, drift, blocks, 1);
    pairs.emplace_back(std::move(before), timings(u, drift, blocks, i == 0 ? slowdown : 1));
  }
  return decide(pairs, 0.05);
}

int count(const Comparisons& result, Verdict verdict) {
  int n = 0;
  for (const Comparison& c : result.cases) n += c.verdict == verdict;
  return n;
}

TEST(Distributions, agree_with_tables) {
  EXPECT_NEAR(distill::student_tail(2.306004, 8), 0.025, 1e-7);
  EXPECT_NEAR(distill::student_tail(-2.306004, 8), 0.975, 1e-7);
  EXPECT_NEAR(distill::student_tail(1, 1), 0.25, 1e-12);  // Cauchy
  EXPECT_NEAR(distill::student_tail(5.893431, 5), 0.001, 1e-8);
  EXPECT_NEAR(distill::student_tail(1.959964, 1e9), 0.025, 1e-7);
  EXPECT_NEAR(distill::student_quantile(0.005, 8), 3.355387, 1e-6);
  EXPECT_NEAR(distill::student_quantile(0.995, 8), -3.355387, 1e-6);
  EXPECT_NEAR(digamma(1), -0.5772156649015329, 1e-12);
  EXPECT_NEAR(digamma(4.5), 1.388870926, 1e-9);
  EXPECT_NEAR(trigamma(1), 3.14159265358979 * 3.14159265358979 / 6, 1e-12);
  EXPECT_NEAR(trigamma_inverse(trigamma(3.25)), 3.25, 1e-8);
}

TEST(Verdict, fewer_than_three_blocks_decide_nothing) {
  for (const std::size_t blocks : {1u, 2u}) {
    const Comparisons result = run(1, steady, blocks, 3.0, 4);
    EXPECT_EQ(result.decided, 0u);
    EXPECT_EQ(count(result, Verdict::kUndecided), 4);
    EXPECT_NEAR(result.cases[0].ratio, 3, 0.2);
    EXPECT_TRUE(std::isnan(result.cases[0].low));
  }
  Uniform u(2);
  const Blocks many = timings(u, steady, 5, 1), few = timings(u, steady, 2, 3);
  EXPECT_EQ(decide({{many, few}}, 0.05).cases[0].verdict, Verdict::kUndecided);
}

TEST(Verdict, drift_without_a_change_is_called_nothing) {
  for (const Drift drift : {up_to_10_percent, up_to_20_percent, slow_stretches})
    for (const std::size_t blocks : {3u, 5u}) {
      int alarmed = 0;
      for (std::uint64_t seed = 0; seed < 20; ++seed) {
        const Comparisons result = run(100 + seed, drift, blocks);
        EXPECT_EQ(result.decided, kCases);
        alarmed += count(result, Verdict::kSlower) + count(result, Verdict::kFaster) > 0;
      }
      EXPECT_LE(alarmed, 1) << blocks << " blocks";
    }
}

TEST(Verdict, a_slowdown_of_20_percent_in_one_case_is_found_with_five_blocks) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Comparisons result = run(200 + seed, up_to_10_percent, 5, 1.2);
    EXPECT_EQ(result.cases[0].verdict, Verdict::kSlower) << seed;
    EXPECT_EQ(count(result, Verdict::kSlower), 1) << seed;
    EXPECT_LT(result.smallest_found, 1.2);
    EXPECT_EQ(run(200 + seed, up_to_10_percent, 5, 1 / 1.2).cases[0].verdict, Verdict::kFaster);
  }
}

// Alone, without the other cases to tell how the machine drifts.
TEST(Verdict, a_slowdown_in_a_file_of_one_case_is_found_with_five_blocks) {
  for (std::uint64_t seed = 0; seed < 20; ++seed)
    EXPECT_EQ(run(300 + seed, up_to_10_percent, 5, 1.3, 1).cases[0].verdict, Verdict::kSlower)
        << seed;
}

TEST(Verdict, less_than_the_threshold_is_not_called_slower) {
  for (std::uint64_t seed = 0; seed < 20; ++seed)
    EXPECT_EQ(count(run(400 + seed, steady, 5, 1.04), Verdict::kSlower), 0) << seed;
}

TEST(Verdict, intervals_hold_the_true_ratio) {
  int held = 0;
  for (std::uint64_t seed = 0; seed < 10; ++seed)
    for (const Comparison& c : run(500 + seed, up_to_10_percent, 5).cases)
      held += c.low < 1 && 1 < c.high;
  EXPECT_GE(held, 3700 * 98 / 100);
  EXPECT_LE(held, 3700 * 998 / 1000);  // and are not wider than they say
}

}  // namespace
}  // namespace retort::bench
