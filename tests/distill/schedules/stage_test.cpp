#include "distill/schedules/stage.h"

#include <gtest/gtest.h>

namespace retort::test {
namespace {

using namespace distill;

const Term& only_term(const Stage& stage) {
  EXPECT_EQ(stage.terms.size(), 1u);
  EXPECT_EQ(stage.terms[0].weight, 1);
  return *stage.terms[0].term;
}

TEST(Stages, one_shot_is_one_endless_stage) {
  const auto s = one_shot_stages(3);
  ASSERT_EQ(s.size(), 1u);
  EXPECT_EQ(s[0].teachers, (std::vector<std::size_t>{3}));
  EXPECT_EQ(s[0].until.steps, 0);
  EXPECT_EQ(only_term(s[0]).name(), "soft_targets");
  EXPECT_FALSE(s[0].partial());
}

TEST(Stages, progressive_is_checkpoints_then_the_final_teacher) {
  const std::vector<ProgressivePart> parts{{4, 1000}, {7, 500}};
  const auto s = progressive_stages(parts, 9);
  ASSERT_EQ(s.size(), 3u);
  EXPECT_EQ(s[0].teachers, (std::vector<std::size_t>{4}));
  EXPECT_EQ(s[0].until.steps, 1000);
  EXPECT_FALSE(s[0].fresh_optimizer);
  EXPECT_EQ(s[1].until.steps, 500);
  EXPECT_EQ(s[2].teachers, (std::vector<std::size_t>{9}));
  EXPECT_EQ(s[2].until.steps, 0);
  EXPECT_THROW(progressive_stages(std::vector<ProgressivePart>{{0, 0}}, 1), Error);
}

TEST(Stages, extraction_is_a_projection_per_layer_then_distillation) {
  const auto s = extraction_stages(
      2, {.variant = ProjectionVariant::kHead, .width = 8, .seed = 5, .projection_teacher = 1});
  ASSERT_EQ(s.size(), 3u);
  for (const std::size_t i : {0u, 1u}) {
    const Term& term = only_term(s[i]);
    EXPECT_EQ(term.name(), "projection");
    EXPECT_EQ(term.of_student(), (nn::Want{static_cast<std::int64_t>(i) + 1, true}));  // its layer
    EXPECT_EQ(term.key(), join("projection head 8 ", i + 1));                          // and width
    EXPECT_EQ(s[i].teachers, (std::vector<std::size_t>{1}));
    EXPECT_TRUE(s[i].partial());
  }
  EXPECT_EQ(only_term(s[2]).name(), "soft_targets");
  EXPECT_EQ(s[2].teachers, (std::vector<std::size_t>{0}));
  EXPECT_FALSE(s[2].partial());
  EXPECT_TRUE(s[2].fresh_optimizer);
  EXPECT_THROW(extraction_stages(0, {}), Error);
  EXPECT_THROW(extraction_stages(1, {.until = {.steps = 0}}), Error);
  EXPECT_THROW(extraction_stages(1, {.variant = ProjectionVariant::kHead, .width = 0}), Error);
}

TEST(Stages, checkpoint_choice) {
  const std::vector<double> accuracy{0.5, 0.5, 0.6, 0.75, 0.9, 1, 1, 1};
  EXPECT_EQ(pick_checkpoints(accuracy, 0.7), (std::vector<std::size_t>{3}));
  EXPECT_EQ(pick_checkpoints(accuracy, 0.7, 2), (std::vector<std::size_t>{3, 5}));
  EXPECT_EQ(pick_checkpoints(accuracy, 0.7, 9), (std::vector<std::size_t>{3, 4, 5, 6}));
  EXPECT_TRUE(pick_checkpoints(accuracy, 1).empty());
  EXPECT_TRUE(pick_checkpoints(std::vector<double>{0.5, 0.9}, 0.7).empty());  // only the last
  EXPECT_TRUE(pick_checkpoints({}, 0.7).empty());
}

}  // namespace
}  // namespace retort::test
