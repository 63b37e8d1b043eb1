#include "curriculum/scoring/score.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/common/check.h"

namespace retort::test {
namespace {

using namespace curriculum;

const ScoreKind& kind(const char* name) { return score_kinds().at(name); }

// Every array has a value of its own.
SampleStatistics one_sample() {
  return {.max_logit = {1},
          .max_prob = {2},
          .max_logprob = {3},
          .p_true = {4},
          .margin = {5},
          .entropy = {6},
          .loss = {7},
          .correct = {1},
          .scored = {}};
}

TEST(Score, built_in_rows_read_their_array) {
  struct Row {
    const char* name;
    float value;
    bool high_is_easy, sees_label;
  };
  const Row rows[] = {{"logit", 1, true, false},   {"prob", 2, true, false},
                      {"logprob", 3, true, false}, {"p_true", 4, true, true},
                      {"margin", 5, true, false},  {"entropy", 6, false, false},
                      {"loss", 7, false, true}};
  nn::Strings names;
  for (const Row& row : rows) {
    const ScoreKind& k = kind(row.name);
    names.push_back(row.name);
    EXPECT_EQ(scores_of(one_sample(), k), std::vector<float>{row.value}) << row.name;
    EXPECT_EQ(k.high_is_easy, row.high_is_easy) << row.name;
    EXPECT_EQ(k.sees_label, row.sees_label) << row.name;
    EXPECT_EQ(easiness_of(k, std::vector<float>{2})[0], row.high_is_easy ? 2 : -2) << row.name;
    EXPECT_FALSE(k.doc.empty()) << row.name;
  }
  for (const char* name : {"text_length", "sentence_length", "word_frequency", "diction"}) {
    names.push_back(name);
    SampleStatistics s;
    s.of_data[name] = {8, 9};
    EXPECT_EQ(scores_of(s, kind(name)), (std::vector<float>{8, 9})) << name;
    EXPECT_TRUE(kind(name).of_data && !kind(name).high_is_easy && !kind(name).sees_label) << name;
  }
  const nn::Strings known = score_kinds().names();
  EXPECT_EQ(nn::Strings(known.begin(), known.begin() + 11), names);
  EXPECT_THROW(kind("confidence"), Error);
}

TEST(Score, a_row_from_outside_is_a_function_and_a_row) {
  // What fits between two logits, say: the largest times its probability.
  const auto weighted = [](const SampleStatistics& s) {
    std::vector<float> scores;
    for (std::size_t i = 0; i < s.size(); ++i) scores.push_back(s.max_logit[i] * s.max_prob[i]);
    return scores;
  };
  score_kinds().add({.names = {"test_weighted_logit"}, .doc = "Of a test.", .of = weighted});
  EXPECT_EQ(scores_of(one_sample(), kind("test_weighted_logit")), std::vector<float>{2});
  EXPECT_THROW(score_kinds().add({.names = {"loss"}, .of = weighted}), Error);
}

TEST(Score, what_was_not_measured_is_an_error) {
  SampleStatistics s = one_sample();
  s.p_true.clear();
  s.margin = {1, 2};
  try {
    scores_of(s, kind("p_true"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "[score] expected 2 values of 'p_true', got 0: it is measured against labels");
  }
  EXPECT_EQ(scores_of(s, kind("margin")).size(), 2u);
  EXPECT_TRUE(scores_of({}, kind("loss")).empty());
}

TEST(Score, other_forms_of_confidence) {
  const std::vector<float> loss{2, 0, 1, 1, 100};
  const std::vector<std::uint8_t> sentinel{0, 0, 0, 0, 1};
  EXPECT_EQ(confidence_of(kind("loss"), loss, {.form = ConfidenceForm::kExp}),
            (std::vector<float>{std::exp(-2.0f), 1, std::exp(-1.0f), std::exp(-1.0f),
                                std::exp(-100.0f)}));
  const std::vector<float> rank =
      confidence_of(kind("loss"), loss, {.form = ConfidenceForm::kRank}, sentinel);
  const float want[] = {0, 1, 2.0f / 3, 2.0f / 3};
  for (std::size_t i = 0; i < 4; ++i) EXPECT_FLOAT_EQ(rank[i], want[i]) << i;
  // High is easy: the largest has the highest rank.
  EXPECT_EQ(
      confidence_of(kind("logit"), std::vector<float>{5, 9, 7}, {.form = ConfidenceForm::kRank}),
      (std::vector<float>{0, 1, 0.5f}));
  EXPECT_EQ(confidence_of(kind("logit"), loss, {.form = ConfidenceForm::kExp}), loss);
}

TEST(Score, confidence_of_a_loss_is_linear_up_to_its_quantile) {
  const std::vector<float> loss{0, 1, 2, 4, 100};
  // Median 2: C = 1 - min(D, 2) / 2.
  EXPECT_EQ(confidence_of(kind("loss"), loss, {.quantile = 0.5}),
            (std::vector<float>{1, 0.5f, 0, 0, 0}));
  // The sentinel 100 left out, quantile 1 is 4.
  EXPECT_EQ(
      confidence_of(kind("loss"), loss, {.quantile = 1}, std::vector<std::uint8_t>{0, 0, 0, 0, 1}),
      (std::vector<float>{1, 0.75f, 0.5f, 0, 0}));
  EXPECT_EQ(confidence_of(kind("entropy"), std::vector<float>{0, 0}), (std::vector<float>{1, 1}));
  EXPECT_EQ(confidence_of(kind("logit"), loss), loss);
}

TEST(Score, quantile_interpolates) {
  EXPECT_DOUBLE_EQ(quantile_of({4, 1, 3, 2}, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(quantile_of({4, 1, 3, 2}, 1), 4);
  EXPECT_DOUBLE_EQ(quantile_of({4, 1, 3, 2}, 0), 1);
  EXPECT_THROW(quantile_of({}, 0.5), Error);
}

}  // namespace
}  // namespace retort::test
