#include "kernels/mse/mse.h"

#include <gtest/gtest.h>

#include "engine/autograd/gradcheck.h"
#include "engine/ops/mse.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

TEST(Mse, hand_checked_numbers) {
  for (const Device device : devices()) {
    Tensor x = Tensor::from<float>({1, 2, 3, 4}, {2, 2}, device);
    x.set_requires_grad(true);
    const Tensor loss = mse(x, Tensor::from<float>({1, 0, 0, 5}, {2, 2}, device));
    EXPECT_EQ(loss.item(), (0 + 4 + 9 + 1) / 4.0);
    loss.backward();
    EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{0, 1, 1.5, -0.5}));
  }
}

TEST(Mse, gradients) {
  for (const auto f : {mse, mse_composed}) {
    const auto result = gradcheck([&](const auto& in) { return f(in[0], in[1]); },
                                  {randn({3, 5}, 1, DType::kF64), randn({3, 5}, 2, DType::kF64)});
    EXPECT_TRUE(result.ok) << result.message;
  }
}

TEST(Mse, errors) {
  EXPECT_THROW(mse(Tensor::zeros({2}), Tensor::zeros({3})), Error);
  EXPECT_THROW(mse(Tensor::zeros({0}), Tensor::zeros({0})), Error);
}

}  // namespace
}  // namespace retort::test
