#include "distill/losses/distillation_loss.h"

#include <gtest/gtest.h>

#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using distill::distillation_loss;
using distill::DistillationLossArgs;
using distill::DistillationLossResult;

// Everything given per row, f64, six rows of five classes.
DistillationLossArgs per_row_args(std::vector<float> tau) {
  DistillationLossArgs a;
  a.student_logits = randn({6, 5}, 1, DType::kF64, 2);
  a.teacher_logits = randn({6, 5}, 2, DType::kF64, 2);
  a.targets = Tensor::from<std::int32_t>({0, 4, 2, -100, 1, 3}, {6});
  a.lambda = Tensor::from<float>({0.1f, 0.9f, 0.5f, 0.5f, 0, 1}, {6});
  a.temperature = Tensor::from(tau, {6});
  a.mask = Tensor::from<std::uint8_t>({1, 1, 0, 1, 1, 1}, {6});
  a.weights = Tensor::from<float>({1, 0.5f, 3, 1, 2, 0.25f}, {6});
  return a;
}

TEST(DistillationLoss, gradient_equals_central_differences) {
  for (int d = 0; d < kernels::kDivergences; ++d)
    for (const std::vector<float>& tau :
         {std::vector<float>(6, 1.0f), std::vector<float>(6, 2.0f), std::vector<float>(6, 4.0f),
          std::vector<float>{1, 2, 4, 1, 0.5f, 8}})
      for (const double upstream : {1.0, 2.5}) {
        DistillationLossArgs a = per_row_args(tau);
        a.divergence = static_cast<kernels::Divergence>(d);
        a.student_logits.set_requires_grad(true);
        distillation_loss(a).total.backward(Tensor::scalar(upstream, DType::kF64));
        const std::vector<double> got = a.student_logits.grad().to_vector<double>();
        double* const s = a.student_logits.data<double>();
        DistillationLossArgs plain = a;
        plain.student_logits = a.student_logits.detach();
        for (std::size_t i = 0; i < got.size(); ++i) {
          const double before = s[i], eps = 1e-6;
          s[i] = before + eps;
          const double up = distillation_loss(plain).total.item();
          s[i] = before - eps;
          const double down = distillation_loss(plain).total.item();
          s[i] = before;
          EXPECT_TRUE(close(got[i], upstream * (up - down) / (2 * eps), 1e-6, 1e-8))
              << name_of(a.divergence) << " element " << i << ": " << got[i] << " against "
              << upstream * (up - down) / (2 * eps);
        }
      }
}

}  // namespace
}  // namespace retort::test
