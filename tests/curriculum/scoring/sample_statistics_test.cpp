#include "curriculum/scoring/sample_statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/common/check.h"
#include "tests/support/close.h"

namespace retort::test {
namespace {

using namespace curriculum;
using Flags = std::vector<std::uint8_t>;
constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNan = std::nanf("");

TEST(SampleStatistics, hand_checked_numbers) {
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

TEST(SampleStatistics, confident_log_probability_is_not_rounded_to_zero) {
  const std::vector<float> logits{30, 0};
  const SampleStatistics s = statistics_of_logits(logits, 2, std::vector<std::int32_t>{0});
  EXPECT_EQ(s.max_prob[0], 1.0f);
  EXPECT_TRUE(close(s.max_logprob[0], -std::log1p(std::exp(-30.0)), 1e-2, 0));
}

TEST(SampleStatistics, edges) {
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

// Five rows of three samples: 1 has rows 0 and 3, 0 has row 2, 2 has rows 1 and 4.
struct FiveRows {
  std::vector<float> max_logit{4, 1, 7, 2, 5};
  std::vector<float> log_confidence{std::log(0.5f), -1, -2, std::log(0.25f), -3};
  std::vector<float> margin{0.5f, 0.25f, 1, 0.75f, 0.25f}, entropy{1, 2, 3, 4, 6};
  std::vector<float> log_p_true{std::log(0.5f), -1, -2, std::log(0.125f), -3};
  Flags correct{1, 1, 0, 0, 1}, counts{};
  std::vector<std::int32_t> sample_of_row{1, 2, 0, 1, 2};

  RowStatistics rows() const {
    return {.max_logit = max_logit,
            .log_confidence = log_confidence,
            .margin = margin,
            .entropy = entropy,
            .log_p_true = log_p_true,
            .correct = correct,
            .counts = counts,
            .sample_of_row = sample_of_row};
  }
};

TEST(SampleStatistics, rows_of_a_sample_are_averaged) {
  const SampleStatistics s = statistics_of_rows(FiveRows().rows(), 3);
  EXPECT_EQ(s.max_logit, (std::vector<float>{7, 3, 3}));
  EXPECT_EQ(s.margin, (std::vector<float>{1, 0.625f, 0.25f}));
  EXPECT_EQ(s.entropy, (std::vector<float>{3, 2.5f, 4}));
  // Means of probabilities: (1/2 + 1/4) / 2 and (1/2 + 1/8) / 2; of logarithms: -3/2 and -2 ln 2.
  EXPECT_TRUE(close(s.max_prob[1], 0.375, 1e-6, 0));
  EXPECT_TRUE(close(s.p_true[1], 0.3125, 1e-6, 0));
  EXPECT_TRUE(close(s.max_logprob[1], -1.5 * std::log(2.0), 1e-6, 0));
  EXPECT_TRUE(close(s.loss[1], 2 * std::log(2.0), 1e-6, 0));
  EXPECT_EQ(s.loss[2], 2);
  EXPECT_EQ(s.correct, (Flags{0, 0, 1}));  // half is not more than half
  EXPECT_EQ(s.scored, (Flags{1, 1, 1}));
}

TEST(SampleStatistics, means_over_maskings_leave_out_what_could_not_be_scored) {
  SampleStatistics a, b;
  a.loss = {1, kNan, kNan};
  a.correct = {1, 0, 0};
  a.scored = {1, 0, 0};
  b.loss = {2, 5, kNan};
  b.correct = {0, 1, 0};
  b.scored = {1, 1, 0};
  const SampleStatistics mean = mean_of(std::vector<SampleStatistics>{a, b});
  EXPECT_EQ(mean.loss[0], 1.5f);
  EXPECT_EQ(mean.loss[1], 5);
  EXPECT_TRUE(std::isnan(mean.loss[2]));
  EXPECT_EQ(mean.correct, (Flags{0, 1, 0}));  // half is not more than half
  EXPECT_EQ(mean.scored, (Flags{1, 1, 0}));
  EXPECT_TRUE(mean.margin.empty());
  EXPECT_EQ(mean_of(std::vector<SampleStatistics>{b}).loss[0], 2);
  b.loss.pop_back();
  EXPECT_THROW(mean_of(std::vector<SampleStatistics>{a, b}), Error);
  EXPECT_THROW(mean_of({}), Error);
}

TEST(SampleStatistics, rows_that_do_not_count_are_not_read_and_no_rows_are_no_score) {
  FiveRows five;
  five.counts = {1, 0, 1, 0, 0};
  five.max_logit[1] = five.max_logit[4] = kNan;
  five.sample_of_row[3] = 77;  // not read either
  const SampleStatistics s = statistics_of_rows(five.rows(), 4);
  EXPECT_EQ(s.scored, (Flags{1, 1, 0, 0}));
  EXPECT_EQ(s.correct, (Flags{0, 1, 0, 0}));
  EXPECT_EQ(s.max_logit[1], 4);
  for (const auto* array :
       {&s.max_logit, &s.max_prob, &s.max_logprob, &s.p_true, &s.margin, &s.entropy, &s.loss}) {
    ASSERT_EQ(array->size(), 4u);
    EXPECT_FALSE(std::isnan((*array)[0]));
    EXPECT_TRUE(std::isnan((*array)[2]) && std::isnan((*array)[3]));
  }
}

TEST(SampleStatistics, one_row_a_sample_is_the_statistics_of_its_logits) {
  std::vector<float> logits;
  for (int i = 0; i < 60; ++i) logits.push_back(static_cast<float>(std::sin(i * i) * 5));
  std::vector<std::int32_t> labels;
  for (int i = 0; i < 20; ++i) labels.push_back(i % 3);
  const SampleStatistics want = statistics_of_logits(logits, 3, labels);
  std::vector<float> log_p_true;
  for (const float loss : want.loss) log_p_true.push_back(-loss);
  RowStatistics rows{.max_logit = want.max_logit,
                     .log_confidence = want.max_logprob,
                     .margin = want.margin,
                     .entropy = want.entropy,
                     .log_p_true = log_p_true,
                     .correct = want.correct};
  const SampleStatistics got = statistics_of_rows(rows, 20);
  EXPECT_EQ(got.max_logit, want.max_logit);  // unrounded
  EXPECT_EQ(got.max_logprob, want.max_logprob);
  EXPECT_EQ(got.margin, want.margin);
  EXPECT_EQ(got.entropy, want.entropy);
  EXPECT_EQ(got.loss, want.loss);
  EXPECT_EQ(got.correct, want.correct);
  for (std::size_t i = 0; i < 20; ++i) {
    EXPECT_TRUE(close(got.max_prob[i], want.max_prob[i], 1e-6, 0));
    EXPECT_TRUE(close(got.p_true[i], want.p_true[i], 1e-6, 0));
  }
  // Probabilities that were measured are taken.
  rows.confidence = want.max_prob;
  rows.p_true = want.p_true;
  EXPECT_EQ(statistics_of_rows(rows, 20).max_prob, want.max_prob);
  EXPECT_EQ(statistics_of_rows(rows, 20).p_true, want.p_true);
}

TEST(SampleStatistics, without_labels) {
  FiveRows five;
  five.log_p_true.clear();
  five.correct.clear();
  const SampleStatistics s = statistics_of_rows(five.rows(), 3);
  EXPECT_TRUE(s.p_true.empty() && s.loss.empty() && s.correct.empty());
  EXPECT_EQ(s.size(), 3u);
}

TEST(SampleStatistics, errors_of_rows) {
  FiveRows five;
  EXPECT_THROW(statistics_of_rows(five.rows(), 2), Error);  // sample 2
  EXPECT_THROW(statistics_of_rows(five.rows(), -1), Error);
  five.sample_of_row[0] = -1;
  EXPECT_THROW(statistics_of_rows(five.rows(), 3), Error);
  five.sample_of_row.clear();
  EXPECT_THROW(statistics_of_rows(five.rows(), 3), Error);  // the identity has five samples
  EXPECT_EQ(statistics_of_rows(five.rows(), 5).max_logit, five.max_logit);
  five.margin.pop_back();
  EXPECT_THROW(statistics_of_rows(five.rows(), 5), Error);
  EXPECT_EQ(statistics_of_rows({}, 0).size(), 0u);
}

}  // namespace
}  // namespace retort::test
