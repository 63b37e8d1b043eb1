#include "distill/metrics/binomial.h"

#include <gtest/gtest.h>

#include "engine/io/json.h"
#include "tests/support/close.h"

namespace retort::test {
namespace {

using namespace distill;

// Newcombe 1998, Statistics in Medicine 17:857, table I: exact (method 5) and score (method 3).
TEST(Binomial, published_intervals) {
  struct Row {
    std::int64_t k, n;
    double exact_low, exact_high, score_low, score_high;
  };
  for (const Row& r :
       {Row{81, 263, 0.2527, 0.3676, 0.2553, 0.3662}, Row{15, 148, 0.0578, 0.1617, 0.0624, 0.1605},
        Row{0, 20, 0, 0.1684, 0, 0.1611}, Row{1, 29, 0.0009, 0.1776, 0.0061, 0.1718}}) {
    const Interval exact = clopper_pearson(r.k, r.n), score = wilson(r.k, r.n);
    EXPECT_NEAR(exact.low, r.exact_low, 5.1e-5) << r.k << " of " << r.n;
    EXPECT_NEAR(exact.high, r.exact_high, 5.1e-5) << r.k << " of " << r.n;
    EXPECT_NEAR(score.low, r.score_low, 5.1e-5) << r.k << " of " << r.n;
    EXPECT_NEAR(score.high, r.score_high, 5.1e-5) << r.k << " of " << r.n;
  }
}

TEST(Binomial, scipy_intervals) {
  const Json golden = Json::read(RETORT_SOURCE_DIR "/tests/golden/metrics.json");
  ASSERT_GE(golden.at("intervals").items().size(), 10u);
  for (const Json& row : golden.at("intervals").items()) {
    const auto at = [&](std::size_t i) { return row.items()[i].as_number(); };
    const std::int64_t k = row.items()[0].as_integer(), n = row.items()[1].as_integer();
    const Interval exact = clopper_pearson(k, n), score = wilson(k, n);
    EXPECT_TRUE(close(exact.low, at(2), 1e-9, 1e-12)) << k << " of " << n << ": " << exact.low;
    EXPECT_TRUE(close(exact.high, at(3), 1e-9, 1e-12)) << k << " of " << n << ": " << exact.high;
    EXPECT_TRUE(close(score.low, at(4), 1e-9, 1e-12)) << k << " of " << n << ": " << score.low;
    EXPECT_TRUE(close(score.high, at(5), 1e-9, 1e-12)) << k << " of " << n << ": " << score.high;
  }
}

TEST(Binomial, closed_forms_at_the_ends_and_other_levels) {
  // k = 0: (1 - p)^n = tail, so high = 1 - tail^(1/n).
  EXPECT_TRUE(close(clopper_pearson(0, 10).high, 1 - std::pow(0.025, 0.1), 1e-12, 0));
  EXPECT_TRUE(close(clopper_pearson(10, 10, 0.9).low, std::pow(0.05, 0.1), 1e-12, 0));
  EXPECT_EQ(clopper_pearson(0, 10).low, 0);
  EXPECT_EQ(clopper_pearson(10, 10).high, 1);
  EXPECT_EQ(wilson(0, 166).low, 0);
  EXPECT_EQ(wilson(166, 166).high, 1);
  // Both are near p +- z sqrt(p (1 - p) / n) where n is large.
  const double half = 1.959963985 * std::sqrt(0.3 * 0.7 / 1e8);
  for (const Interval& i : {clopper_pearson(30000000, 100000000), wilson(30000000, 100000000)}) {
    EXPECT_NEAR(i.low, 0.3 - half, 1e-6);
    EXPECT_NEAR(i.high, 0.3 + half, 1e-6);
  }
}

TEST(Binomial, errors) {
  EXPECT_THROW(clopper_pearson(1, 0), Error);
  EXPECT_THROW(clopper_pearson(-1, 5), Error);
  EXPECT_THROW(wilson(6, 5), Error);
  EXPECT_THROW(wilson(1, 5, 1), Error);
  EXPECT_THROW(clopper_pearson(1, 5, std::nan("")), Error);
}

}  // namespace
}  // namespace retort::test
