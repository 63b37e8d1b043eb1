#include "tests/distill/metrics/evaluation_meter.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

float log_of(double p) { return static_cast<float>(std::log(p)); }

TEST(Evaluation, hand_checked_numbers) {
  // Student probabilities (.75 .25) (.5 .5) (.1 .9); teacher (.5 .5) (.2 .8) (.1 .9); labels 0 1 1.
  const Tensor student =
      Tensor::from<float>({log_of(.75), log_of(.25), 0, 0, log_of(.1), log_of(.9)}, {3, 2});
  const Tensor teacher =
      Tensor::from<float>({1, 1, log_of(.2), log_of(.8), log_of(.1), log_of(.9)}, {3, 2});
  EvaluationMeter meter(2);
  const Tensor targets = Tensor::from<std::int32_t>({0, 1, 1}, {3});
  meter.add(student.slice(0, 1), targets.slice(0, 1), teacher.slice(0, 1));
  meter.add(student.slice(1, 3), targets.slice(1, 3), teacher.slice(1, 3));
  const EvaluationResult r = meter.result();
  const double rtol = 1e-6;
  EXPECT_EQ(r.samples, 3);
  EXPECT_TRUE(close(r.accuracy, 2 / 3.0, rtol, 0));  // row 1: first of equal maxima is 0
  EXPECT_TRUE(close(r.teacher_accuracy, 1, rtol, 0));
  EXPECT_TRUE(close(r.agreement, 2 / 3.0, rtol, 0));
  EXPECT_TRUE(close(r.loss, -(std::log(.75) + std::log(.5) + std::log(.9)) / 3, rtol, 0));
  const double kl0 = .5 * std::log(.5 / .75) + .5 * std::log(.5 / .25),
               kl1 = .2 * std::log(.4) + .8 * std::log(1.6);
  EXPECT_TRUE(close(r.mean_kl, (kl0 + kl1) / 3, rtol, 1e-9));
  // Bins (0, .5] and (.5, 1]: row 1 alone, wrong with .5; rows 0 and 2 right with .75 and .9.
  EXPECT_TRUE(close(r.calibration_error, (.5 + (2 - 1.65)) / 3, 1e-5, 0));
}

TEST(Evaluation, without_a_teacher_and_empty) {
  EvaluationMeter meter;
  EXPECT_EQ(meter.result().samples, 0);
  meter.add(Tensor::zeros({4, 2}), Tensor::from<std::int32_t>({0, 0, 1, 1}, {4}));
  EXPECT_EQ(meter.result().accuracy, 0.5);
  EXPECT_EQ(meter.result().calibration_error, 0);  // says .5, is right half of the time
  EXPECT_EQ(meter.result().agreement, 0);
}

TEST(Evaluation, large_logits_and_zero_probabilities) {
  EvaluationMeter meter;
  const Tensor z = Tensor::from<float>({100, -100, -HUGE_VALF}, {1, 3});
  meter.add(z, Tensor::from<std::int32_t>({1}, {1}), z);
  EXPECT_TRUE(close(meter.result().loss, 200, 1e-9, 0));
  EXPECT_EQ(meter.result().mean_kl, 0);
}

TEST(Evaluation, errors) {
  EvaluationMeter meter;
  const Tensor one = Tensor::from<std::int32_t>({0}, {1});
  EXPECT_THROW(meter.add(Tensor::full({1, 2}, std::nan("")), one), Error);
  EXPECT_THROW(meter.add(Tensor::zeros({1, 2}), Tensor::from<std::int32_t>({2}, {1})), Error);
  EXPECT_THROW(meter.add(Tensor::zeros({2, 2}), one), Error);
  meter.add(Tensor::zeros({1, 2}), one);
  EXPECT_THROW(meter.add(Tensor::zeros({1, 2}), one, Tensor::zeros({1, 2})), Error);
  const Tensor z = Tensor::zeros({2, 2});
  for (const Tensor& bad : {Tensor::zeros({2}), Tensor::zeros({2, 1}, DType::kI32),
                            Tensor::zeros({3}, DType::kI32), Tensor()}) {
    EXPECT_THROW(meter.add(z, bad), Error);
    EXPECT_THROW(accuracy_of(z, bad), Error);
  }
}

TEST(Evaluation, a_call_that_throws_adds_nothing) {
  EvaluationMeter meter;
  const Tensor two = Tensor::from<std::int32_t>({0, 7}, {2}), z = Tensor::zeros({2, 2});
  EXPECT_THROW(meter.add(z, two, z), Error);  // the second row
  const Tensor sound = Tensor::from<std::int32_t>({0, 1}, {2});
  meter.add(z, sound);  // not even that there was a teacher
  EXPECT_THROW(meter.add(z, two), Error);
  const EvaluationResult r = meter.result();
  EXPECT_EQ(r.samples, 2);
  EXPECT_EQ(r.accuracy, 0.5);
  EXPECT_TRUE(close(r.loss, std::log(2.), 1e-9, 0));
  EXPECT_TRUE(close(r.calibration_error, 0, 0, 1e-12));
}

}  // namespace
}  // namespace retort::test
