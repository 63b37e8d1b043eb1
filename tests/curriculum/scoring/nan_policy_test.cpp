#include "curriculum/scoring/nan_policy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/common/check.h"

namespace retort::test {
namespace {

using namespace curriculum;
using Flags = std::vector<std::uint8_t>;
constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNan = std::nanf("");

TEST(NanPolicy, by_hand) {
  const std::vector<float> scores{3, kNan, 1, kInf, 2};
  const CleanScores dropped = clean_scores(scores, {NanRule::kDrop});
  EXPECT_EQ(dropped.bad, 2);
  EXPECT_EQ(dropped.kept, (std::vector<std::int64_t>{0, 2, 4}));
  EXPECT_EQ(dropped.scores, (std::vector<float>{3, 0, 1, 0, 2}));
  EXPECT_EQ(dropped.warning,
            "2 of 5 samples could not be scored: dropped, and left out of every normaliser");
  const CleanScores sentinel = clean_scores(scores, {NanRule::kSentinel, 10});
  EXPECT_EQ(sentinel.scores, (std::vector<float>{3, 10, 1, 10, 2}));
  EXPECT_EQ(sentinel.excluded, (Flags{0, 1, 0, 1, 0}));
  EXPECT_EQ(sentinel.kept.size(), 5u);
  EXPECT_EQ(clean_scores(scores, {NanRule::kQuantile, 0.5}).scores[1], 2);
  EXPECT_EQ(clean_scores({}, {NanRule::kDrop}).bad, 0);
}

TEST(NanPolicy, a_sample_without_rows_is_not_scored_whatever_its_number) {
  const std::vector<float> scores{3, 100, 1};
  const CleanScores clean = clean_scores(scores, {NanRule::kQuantile, 1}, Flags{1, 0, 1});
  EXPECT_EQ(clean.bad, 1);
  EXPECT_EQ(clean.scores, (std::vector<float>{3, 3, 1}));
  EXPECT_EQ(clean.excluded, (Flags{0, 1, 0}));
  try {
    clean_scores(scores, {}, Flags{1, 0, 1});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNumerics);
    EXPECT_STREQ(error.what(),
                 "[score] sample 1 cannot be scored: expected a finite score, got none; "
                 "curriculum.nan may drop it or replace its score");
  }
}

TEST(NanPolicy, errors) {
  EXPECT_THROW(clean_scores(std::vector<float>{1, kNan}, {}), Error);
  EXPECT_THROW(clean_scores(std::vector<float>{kNan}, {NanRule::kDrop}), Error);
  EXPECT_THROW(clean_scores(std::vector<float>{1}, {}, Flags{1, 1}), Error);
  EXPECT_THROW(clean_scores(std::vector<float>{1, kNan}, {NanRule::kQuantile, 2}), Error);
}

TEST(NanPolicy, options_give_what_they_say) {
  const std::vector<nn::OptionSpec> specs = nan_options();
  EXPECT_EQ(specs[0].choices, "refuse|drop|sentinel|quantile");
  for (const nn::OptionSpec& spec : specs) EXPECT_TRUE(spec.effects & nn::kChangesOrder);
  for (const std::string& name : nn::split(specs[0].choices, '|'))
    EXPECT_EQ(name_of(parse_nan_rule(name)), name);
  EXPECT_THROW(parse_nan_rule("ignore"), Error);
  EXPECT_EQ(nan_policy_of(nn::complete("nan", specs, {})).rule, NanRule::kRefuse);
  const auto given = [&](const char* rule) {
    return nn::complete("nan", specs, {{"nan", rule}, {"nan_value", 100.0}});
  };
  EXPECT_EQ(nan_policy_of(given("sentinel")).value, 100);
  EXPECT_EQ(nan_mistake(given("sentinel")).message, "");
  EXPECT_EQ(nan_mistake(given("quantile")).key, "nan_value");
}

}  // namespace
}  // namespace retort::test
