#include "curriculum/schedules/reliance.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "tests/support/close.h"

namespace retort::test {
namespace {

using namespace curriculum;
using Indices = std::vector<std::int64_t>;

// Fed in this order, batches of two have means 9, 6, 1 and 4; the largest single score is 10.
const std::vector<float> kC{10, 8, 6, 6, 2, 0, 3, 5};
const Indices kOrder{0, 1, 2, 3, 4, 5, 6, 7}, kInverse{7, 6, 5, 4, 3, 2, 1, 0};

Reliance fit(RelianceOptions options, const Indices& order = kOrder) {
  return Reliance(kC, order, 2, options);
}
void expect_values(const std::vector<float>& got, const std::vector<double>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    EXPECT_TRUE(close(got[i], want[i], 1e-6, 1e-7)) << i << ": " << got[i] << ", want " << want[i];
}

TEST(Reliance, literal_by_hand) {
  const Reliance r = fit({.mode = RelianceMode::kLiteral, .offset = RelianceOffset::kFirstBatch});
  EXPECT_TRUE(close(r.offset(), (1 - 9.0) / 10, 1e-12, 0));  // s = -0.8: not small, negative
  EXPECT_EQ(r.max_confidence(), 10);
  expect_values(r.planned(), {0, 0.3, 0.8, 0.5});
  EXPECT_EQ(r.fraction_clamped(), 0);
  EXPECT_TRUE(r.warnings().empty());
}

TEST(Reliance, literal_inverse_is_negative_from_the_first_batch_and_sane_from_the_easiest) {
  const RelianceOptions first{
      .mode = RelianceMode::kLiteral, .offset = RelianceOffset::kFirstBatch, .clamp = false};
  // Inverse feeding has means 4, 1, 6, 9.
  expect_values(fit(first, kInverse).planned(), {0, 0.3, -0.2, -0.5});
  RelianceOptions clamped = first;
  clamped.clamp = true;
  const Reliance c = fit(clamped, kInverse);
  expect_values(c.planned(), {0, 0.3, 0, 0});
  EXPECT_DOUBLE_EQ(c.fraction_clamped(), 0.5);
  EXPECT_EQ(c.warnings().size(), 1u);
  RelianceOptions easiest = first;
  easiest.offset = RelianceOffset::kGlobalEasiest;
  expect_values(fit(easiest, kInverse).planned(), {0.5, 0.8, 0.3, 0});
}

TEST(Reliance, minmax_by_hand) {
  expect_values(fit({.mode = RelianceMode::kMinmax}).planned(), {0, 3 / 8.0, 1, 5 / 8.0});
  expect_values(fit({.mode = RelianceMode::kMinmax}, kInverse).planned(), {5 / 8.0, 1, 3 / 8.0, 0});
}

TEST(Reliance, rank_by_hand_whatever_the_feeding_order) {
  expect_values(fit({.mode = RelianceMode::kRank}).planned(), {0, 1 / 3.0, 1, 2 / 3.0});
  expect_values(fit({.mode = RelianceMode::kRank}, kInverse).planned(), {2 / 3.0, 1, 1 / 3.0, 0});
}

TEST(Reliance, per_sample_is_a_batch_of_one) {
  const Reliance r = fit({.mode = RelianceMode::kMinmax, .per_sample = true});
  expect_values(r.planned(), {0, 0.2, 0.4, 0.4, 0.8, 1, 0.7, 0.5});
  expect_values(r.of_samples(Indices{5, 0, 2}), {1, 0, 0.4});
  expect_values(fit({.mode = RelianceMode::kRank, .per_sample = true}).planned(),
                {0, 1 / 7.0, 2 / 7.0, 2 / 7.0, 6 / 7.0, 1, 5 / 7.0, 4 / 7.0});
  expect_values(fit({.mode = RelianceMode::kLiteral,
                     .offset = RelianceOffset::kFirstBatch,
                     .per_sample = true})
                    .planned(),
                {0, 0.2, 0.4, 0.4, 0.8, 1, 0.7, 0.5});
}

TEST(Reliance, of_batch_agrees_with_the_plan_and_takes_any_batch) {
  for (const RelianceMode mode :
       {RelianceMode::kLiteral, RelianceMode::kMinmax, RelianceMode::kRank}) {
    const Reliance r = fit({.mode = mode});
    for (std::size_t b = 0; b < 4; ++b)
      EXPECT_EQ(static_cast<float>(r.of_batch(std::span(kOrder).subspan(2 * b, 2))),
                r.planned()[b]);
  }
  // Samples 0 and 5: mean 5. minmax (9 - 5) / 8.
  EXPECT_DOUBLE_EQ(fit({.mode = RelianceMode::kMinmax}).of_batch(Indices{0, 5}), 0.5);
  // A mean outside the plan's range is clamped: sample 0 alone has mean 10.
  EXPECT_EQ(fit({.mode = RelianceMode::kMinmax}).clamped(Indices{0}), 1);
  EXPECT_EQ(fit({.mode = RelianceMode::kMinmax}).clamped(Indices{0, 5}), 0);
  EXPECT_EQ(fit({.mode = RelianceMode::kMinmax, .clamp = false}).clamped(Indices{0}), 0);
  EXPECT_DOUBLE_EQ(fit({.mode = RelianceMode::kMinmax}).of_batch(Indices{0}), 0);
  EXPECT_DOUBLE_EQ(fit({.mode = RelianceMode::kMinmax, .clamp = false}).of_batch(Indices{0}),
                   -0.125);
  expect_values(fit({.mode = RelianceMode::kMinmax}).of_samples(Indices{0, 5}), {0.5, 0.5});
}

TEST(Reliance, incomplete_last_batch) {
  const Indices odd{0, 1, 2, 3, 5};  // means 9, 6, 0
  expect_values(fit({.mode = RelianceMode::kMinmax}, odd).planned(), {0, 1 / 3.0, 1});
  expect_values(fit({.mode = RelianceMode::kMinmax, .drop_last = true}, odd).planned(), {0, 1});
}

TEST(Reliance, equal_scores_give_zero_and_a_warning) {
  const std::vector<float> same(6, 0.99f);
  const Indices order{0, 1, 2, 3, 4, 5};
  for (const RelianceMode mode :
       {RelianceMode::kLiteral, RelianceMode::kMinmax, RelianceMode::kRank})
    for (const bool per_sample : {false, true}) {
      const Reliance r(same, order, 2, {.mode = mode, .per_sample = per_sample});
      for (const float lambda : r.planned()) EXPECT_EQ(lambda, 0);
      EXPECT_TRUE(r.degenerate());
      EXPECT_EQ(r.warnings().size(), 1u);
      EXPECT_EQ(r.of_batch(Indices{1}), 0);
    }
  const Reliance one(same, Indices{0}, 4, {.mode = RelianceMode::kRank});  // a single batch
  EXPECT_EQ(one.planned(), std::vector<float>{0});
}

TEST(Reliance, constant) {
  const Reliance r = fit({.mode = RelianceMode::kOff, .constant = 0.25});
  expect_values(r.planned(), {0.25, 0.25, 0.25, 0.25});
  EXPECT_DOUBLE_EQ(r.of_batch(Indices{3}), 0.25);
  EXPECT_FALSE(r.degenerate());
  EXPECT_DOUBLE_EQ(Reliance().of_batch(Indices{12345}), 0.5);
}

TEST(Reliance, excluded_samples_count_nowhere) {
  std::vector<float> c = kC;
  c[0] = 1000;  // a sentinel
  const std::vector<std::uint8_t> excluded{1, 0, 0, 0, 0, 0, 0, 0};
  const Reliance r(c, kOrder, 2, {.mode = RelianceMode::kLiteral, .clamp = false}, excluded);
  EXPECT_EQ(r.max_confidence(), 8);
  expect_values(r.planned(), {0, 0.25, 7 / 8.0, 0.5});  // means 8, 6, 1, 4
  EXPECT_EQ(r.of_batch(Indices{0}), 0);
}

TEST(Reliance, order_may_leave_samples_out) {
  expect_values(Reliance(kC, Indices{2, 3, 4, 5}, 2, {.mode = RelianceMode::kLiteral}).planned(),
                {0, 5 / 6.0});  // the largest score among the four is 6
}

TEST(Reliance, errors_and_names) {
  std::vector<float> c = kC;
  c[3] = std::nanf("");
  EXPECT_THROW(Reliance(c, kOrder, 2, {}), Error);
  EXPECT_THROW(Reliance(kC, kOrder, 0, {}), Error);
  EXPECT_THROW(Reliance(kC, Indices{99}, 1, {}), Error);
  const std::vector<float> logprob{-0.1f, -0.2f};
  EXPECT_THROW(Reliance(logprob, Indices{0, 1}, 1, {.mode = RelianceMode::kLiteral}), Error);
  expect_values(Reliance(logprob, Indices{0, 1}, 1, {.mode = RelianceMode::kMinmax}).planned(),
                {0, 1});
  EXPECT_TRUE(Reliance(kC, Indices{}, 2, {}).planned().empty());
  EXPECT_THROW(parse_reliance_mode("p_true"), Error);
  EXPECT_THROW(parse_reliance_offset("zero"), Error);
}

TEST(Reliance, options_give_what_they_say) {
  const std::vector<nn::OptionSpec> specs = reliance_options();
  const RelianceOptions standard = reliance_of(nn::complete("reliance", specs, {}));
  EXPECT_EQ(standard.mode, RelianceMode::kOff);
  EXPECT_EQ(standard.offset, RelianceOffset::kGlobalEasiest);
  EXPECT_TRUE(standard.clamp);
  EXPECT_FALSE(standard.per_sample);
  const nn::Options given = nn::complete(
      "reliance", specs,
      {{"mode", "literal"}, {"s", "first_batch"}, {"clamp", false}, {"per", "sample"}});
  const RelianceOptions all = reliance_of(given);
  EXPECT_EQ(all.mode, RelianceMode::kLiteral);
  EXPECT_EQ(all.offset, RelianceOffset::kFirstBatch);
  EXPECT_FALSE(all.clamp);
  EXPECT_TRUE(all.per_sample);
  EXPECT_EQ(reliance_mistake(given, score_kinds().at("logprob")).key, "mode");
  EXPECT_EQ(reliance_mistake(given, score_kinds().at("logit")).message, "");
  EXPECT_EQ(specs[0].choices, "off|minmax|rank|literal");
  for (const std::string& name : nn::split(specs[0].choices, '|'))
    EXPECT_EQ(name_of(parse_reliance_mode(name)), name);
}

}  // namespace
}  // namespace retort::test
