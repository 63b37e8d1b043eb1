#include "kernels/distill_loss/distill_loss.h"

#include <gtest/gtest.h>

#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using kernels::DistillLossArgs;

// Two rows of two classes at tau = 2, lambda = 1/4: softmax by hand.
TEST(DistillLossKernel, hand_checked_numbers) {
  const double l3 = std::log(3.0);
  const std::vector<double> s{0, l3, 0, 0}, t{2 * l3, 0, 0, 0};
  std::vector<double> ds(4);
  const std::vector<std::int32_t> y{0, 1};
  const float lambda = 0.25f, tau = 2.0f;
  double total = 0;
  std::vector<float> stats(kernels::kRowStatistics * 2);
  std::vector<std::int32_t> argmax(4);
  std::vector<std::uint8_t> correct(4);
  DistillLossArgs a;
  a.student = s.data(), a.teacher = t.data(), a.dstudent = ds.data();
  a.student_pitch = a.teacher_pitch = a.dstudent_pitch = 2;
  a.targets = y.data(), a.lambda = &lambda, a.temperature = &tau, a.total = &total;
  a.statistics = stats.data(), a.argmax = argmax.data(), a.correct = correct.data();
  a.rows = 2, a.classes = 2, a.dtype = DType::kF64;
  kernels::distill_loss(context_of(Device::kCpu), a);
  // Row 0: softmax(s) = (1, 3) / 4, CE = log 4; q = (1, r) / (1 + r) with r = sqrt 3, p = (3, 1)
  // / 4.
  const double r = std::sqrt(3.0), q0 = 1 / (1 + r);
  const double kl = 0.75 * std::log(0.75 / q0) + 0.25 * std::log(0.25 / (1 - q0));
  // Row 1: CE = log 2, KL = 0.
  EXPECT_NEAR(total, 0.5 * (0.75 * std::log(4.0) + 0.25 * 4 * kl + 0.75 * std::log(2.0)), 1e-14);
  const double g0 = 0.5 * (0.75 * (0.25 - 1) + 0.25 * 2 * (q0 - 0.75));
  EXPECT_NEAR(ds[0], g0, 1e-15);
  EXPECT_NEAR(ds[1], -g0, 1e-15);
  EXPECT_NEAR(ds[2], 0.5 * 0.75 * 0.5, 1e-15);
  EXPECT_NEAR(ds[3], -0.5 * 0.75 * 0.5, 1e-15);
  const auto stat = [&](int k, int i) { return stats[static_cast<std::size_t>(2 * k + i)]; };
  EXPECT_FLOAT_EQ(stat(kernels::kStatCe, 0), static_cast<float>(std::log(4.0)));
  EXPECT_FLOAT_EQ(stat(kernels::kStatKd, 0), static_cast<float>(4 * kl));
  EXPECT_EQ(stat(kernels::kStatKd, 1), 0.0f);
  EXPECT_FLOAT_EQ(stat(kernels::kStatTeacherConfidence, 0), 0.9f);
  EXPECT_FLOAT_EQ(stat(kernels::kStatTeacherMargin, 0), 0.8f);
  EXPECT_FLOAT_EQ(stat(kernels::kStatTeacherPTrue, 0), 0.9f);
  EXPECT_FLOAT_EQ(stat(kernels::kStatTeacherEntropy, 1), static_cast<float>(std::log(2.0)));
  EXPECT_EQ(argmax, (std::vector<std::int32_t>{1, 0, 0, 0}));
  EXPECT_EQ(correct, (std::vector<std::uint8_t>{0, 0, 1, 0}));
}

}  // namespace
}  // namespace retort::test
