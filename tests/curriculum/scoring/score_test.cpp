#include "curriculum/scoring/score.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/close.h"

namespace retort::test {
namespace {

using namespace curriculum;
constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::nanf("");

TEST(Score, hand_checked_numbers) {
  // Row 0: probabilities 1/2, 1/4, 1/4. Row 1: 1/8, 7/8, 0.
  const float l2 = std::log(2.0f);
  const std::vector<float> logits{l2 + 3, 3, 3, 0, std::log(7.0f), -kInf};
  const std::vector<std::int32_t> labels{0, 0};
  const SampleStatistics s = statistics_of_logits(logits, 3, labels);
  const double rtol = 1e-6, atol = 1e-6;
  const double h1 = -(std::log(1 / 8.0) / 8 + 7 * std::log(7 / 8.0) / 8);
  EXPECT_TRUE(close(s.max_logit[0], 3 + std::log(2.0), rtol, atol));
  EXPECT_TRUE(close(s.max_prob[0], 0.5, rtol, atol));
  EXPECT_TRUE(close(s.max_logprob[0], -std::log(2.0), rtol, atol));
  EXPECT_TRUE(close(s.p_true[0], 0.5, rtol, atol));
  EXPECT_TRUE(close(s.margin[0], 0.25, rtol, atol));
  EXPECT_TRUE(close(s.entropy[0], 1.5 * std::log(2.0), rtol, atol));
  EXPECT_TRUE(close(s.loss[0], std::log(2.0), rtol, atol));
  EXPECT_TRUE(close(s.max_prob[1], 0.875, rtol, atol));
  EXPECT_TRUE(close(s.p_true[1], 0.125, rtol, atol));
  EXPECT_TRUE(close(s.margin[1], 0.75, rtol, atol));
  EXPECT_TRUE(close(s.entropy[1], h1, rtol, atol));
  EXPECT_TRUE(close(s.loss[1], std::log(8.0), rtol, atol));
  EXPECT_EQ(s.correct, (std::vector<std::uint8_t>{1, 0}));
}

TEST(Score, confident_log_probability_is_not_rounded_to_zero) {
  const std::vector<float> logits{30, 0};
  const SampleStatistics s = statistics_of_logits(logits, 2, std::vector<std::int32_t>{0});
  EXPECT_EQ(s.max_prob[0], 1.0f);
  EXPECT_TRUE(close(s.max_logprob[0], -std::log1p(std::exp(-30.0)), 1e-2, 0));
}

TEST(Score, edges) {
  EXPECT_TRUE(statistics_of_logits({}, 3, {}).correct.empty());
  const SampleStatistics one =
      statistics_of_logits(std::vector<float>{7}, 1, std::vector<std::int32_t>{0});
  EXPECT_EQ(one.loss[0], 0);
  EXPECT_EQ(one.entropy[0], 0);
  EXPECT_EQ(one.margin[0], 1);
  const std::vector<std::int32_t> label{0};
  EXPECT_THROW(statistics_of_logits(std::vector<float>{kNan, 0}, 2, label), Error);
  EXPECT_THROW(statistics_of_logits(std::vector<float>{-kInf, -kInf}, 2, label), Error);
  EXPECT_THROW(statistics_of_logits(std::vector<float>{kInf, 0}, 2, label), Error);
  EXPECT_THROW(statistics_of_logits(std::vector<float>{1}, 2, label), Error);
  EXPECT_THROW(statistics_of_logits(std::vector<float>{1, 2}, 2, std::vector<std::int32_t>{2}),
               Error);
  // Equal maxima: the first class is the prediction.
  EXPECT_EQ(statistics_of_logits(std::vector<float>{1, 1}, 2, label).correct[0], 1);
}

TEST(Score, names_round_trip_and_directions) {
  for (const char* name : {"logit", "prob", "logprob", "p_true", "margin", "entropy", "loss"}) {
    const ScoreKind kind = parse_score_kind(name);
    EXPECT_STREQ(name_of(kind), name);
    const bool hard_up = kind == ScoreKind::kEntropy || kind == ScoreKind::kLoss;
    EXPECT_EQ(high_is_easy(kind), !hard_up);
    EXPECT_EQ(easiness_of(kind, std::vector<float>{2})[0], hard_up ? -2 : 2);
  }
  EXPECT_THROW(parse_score_kind("confidence"), Error);
}

TEST(Score, confidence_of_a_loss_is_linear_up_to_its_quantile) {
  const std::vector<float> loss{0, 1, 2, 4, 100};
  // Median 2: C = 1 - min(D, 2) / 2.
  EXPECT_EQ(confidence_of(ScoreKind::kLoss, loss, 0.5), (std::vector<float>{1, 0.5f, 0, 0, 0}));
  // The sentinel 100 left out, quantile 1 is 4.
  EXPECT_EQ(confidence_of(ScoreKind::kLoss, loss, 1, std::vector<std::uint8_t>{0, 0, 0, 0, 1}),
            (std::vector<float>{1, 0.75f, 0.5f, 0, 0}));
  EXPECT_EQ(confidence_of(ScoreKind::kEntropy, std::vector<float>{0, 0}),
            (std::vector<float>{1, 1}));
  EXPECT_EQ(confidence_of(ScoreKind::kLogit, loss), loss);
}

TEST(Score, nan_policies) {
  const std::vector<float> scores{3, kNan, 1, kInf, 2};
  EXPECT_THROW(clean_scores(scores, NanPolicy::kRefuse), Error);
  const CleanScores dropped = clean_scores(scores, NanPolicy::kDrop);
  EXPECT_EQ(dropped.bad, 2);
  EXPECT_EQ(dropped.kept, (std::vector<std::int64_t>{0, 2, 4}));
  EXPECT_FALSE(dropped.warning.empty());
  const CleanScores sentinel = clean_scores(scores, NanPolicy::kSentinel, 10);
  EXPECT_EQ(sentinel.scores, (std::vector<float>{3, 10, 1, 10, 2}));
  EXPECT_EQ(sentinel.excluded, (std::vector<std::uint8_t>{0, 1, 0, 1, 0}));
  EXPECT_EQ(sentinel.kept.size(), 5u);
  EXPECT_EQ(clean_scores(scores, NanPolicy::kQuantile, 0.5).scores[1], 2);
  EXPECT_THROW(clean_scores(std::vector<float>{kNan}, NanPolicy::kDrop), Error);
  EXPECT_EQ(clean_scores({}, NanPolicy::kDrop).bad, 0);
}

TEST(Score, quantile_interpolates) {
  EXPECT_DOUBLE_EQ(quantile_of({4, 1, 3, 2}, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(quantile_of({4, 1, 3, 2}, 1), 4);
  EXPECT_DOUBLE_EQ(quantile_of({4, 1, 3, 2}, 0), 1);
  EXPECT_THROW(quantile_of({}, 0.5), Error);
}

}  // namespace
}  // namespace retort::test
