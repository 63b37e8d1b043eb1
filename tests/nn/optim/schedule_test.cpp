#include "nn/optim/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/common/check.h"

namespace retort::nn {
namespace {

using Kind = Schedule::Kind;

TEST(Schedules, constant) {
  const Schedule s{.kind = Kind::kConstant, .base = 0.3};
  EXPECT_EQ(s.at(0), 0.3);
  EXPECT_EQ(s.at(1000000), 0.3);
}

TEST(Schedules, milestones_divide_from_their_step_on) {
  const Schedule s{.kind = Kind::kStep, .base = 1, .milestones = {10, 20}, .gamma = 0.1};
  EXPECT_EQ(s.at(9), 1);
  EXPECT_DOUBLE_EQ(s.at(10), 0.1);
  EXPECT_DOUBLE_EQ(s.at(19), 0.1);
  EXPECT_DOUBLE_EQ(s.at(20), 0.01);
}

TEST(Schedules, cosine_by_hand) {
  const Schedule s{.kind = Kind::kCosine, .base = 1, .final = 0.2, .total = 100};
  EXPECT_DOUBLE_EQ(s.at(0), 1);
  EXPECT_DOUBLE_EQ(s.at(50), 0.6);
  EXPECT_NEAR(s.at(25), 0.2 + 0.8 * (1 + std::sqrt(0.5)) / 2, 1e-12);
  EXPECT_DOUBLE_EQ(s.at(100), 0.2);
  EXPECT_DOUBLE_EQ(s.at(500), 0.2);
}

TEST(Schedules, linear_by_hand) {
  const Schedule s{.kind = Kind::kLinear, .base = 1, .final = 0, .total = 10};
  EXPECT_DOUBLE_EQ(s.at(0), 1);
  EXPECT_DOUBLE_EQ(s.at(3), 0.7);
  EXPECT_DOUBLE_EQ(s.at(10), 0);
}

TEST(Schedules, warm_up_in_front_of_each) {
  for (const Kind kind : {Kind::kConstant, Kind::kStep, Kind::kCosine, Kind::kLinear}) {
    const Schedule s{.kind = kind,
                     .base = 2,
                     .total = 30,
                     .milestones = {20},
                     .warmup = 10,
                     .warmup_start = 0.5};
    EXPECT_DOUBLE_EQ(s.at(0), 1);
    EXPECT_DOUBLE_EQ(s.at(5), 1.5);
    EXPECT_DOUBLE_EQ(s.at(10), 2);
  }
  const Schedule s{.kind = Kind::kCosine, .base = 2, .total = 30, .warmup = 10};
  EXPECT_DOUBLE_EQ(s.at(0), 0);
  EXPECT_DOUBLE_EQ(s.at(20), 1);  // half way through what is left
}

TEST(Schedules, nonsense_is_refused) {
  EXPECT_NO_THROW(Schedule{}.check());
  EXPECT_THROW((Schedule{.kind = Kind::kCosine, .total = 0}.check()), Error);
  EXPECT_THROW((Schedule{.kind = Kind::kCosine, .total = 5, .warmup = 5}.check()), Error);
  EXPECT_THROW((Schedule{.base = NAN}.check()), Error);
  EXPECT_THROW((Schedule{.base = -1}.check()), Error);
  EXPECT_THROW((Schedule{.kind = Kind::kStep, .milestones = {2, 1}}.check()), Error);
  EXPECT_THROW(parse_schedule("cosin"), Error);
  EXPECT_EQ(parse_schedule("cosine"), Kind::kCosine);
}

}  // namespace
}  // namespace retort::nn
