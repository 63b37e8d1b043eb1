#include "curriculum/schedules/cutoff.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/common/check.h"

namespace retort::test {
namespace {

using namespace curriculum;

TEST(Cutoff, a_fraction_of_the_run_or_a_step) {
  EXPECT_EQ(cutoff_step(0, 100), 0);
  EXPECT_EQ(cutoff_step(0.25, 1000), 250);
  EXPECT_EQ(cutoff_step(0.29, 100), 29);  // 0.29 * 100 is 28.999999999999996
  EXPECT_EQ(cutoff_step(40, 1000), 40);
  EXPECT_EQ(apply_cutoff(0.7, cutoff_step(0.25, 1000), 249), 0.7);
  EXPECT_EQ(apply_cutoff(0.7, cutoff_step(0.25, 1000), 250), 0);
}

TEST(Cutoff, by_default_the_teacher_stays) {
  const nn::Options standard = nn::complete("distill", std::vector{cutoff_option()}, {});
  EXPECT_EQ(apply_cutoff(0.7, cutoff_step(standard.number("cutoff"), 10), 1000000000000), 0.7);
}

TEST(Cutoff, errors) {
  EXPECT_THROW(cutoff_step(-0.5, 10), Error);
  EXPECT_THROW(cutoff_step(std::nan(""), 10), Error);
  EXPECT_THROW(cutoff_step(0.5, -1), Error);
}

}  // namespace
}  // namespace retort::test
