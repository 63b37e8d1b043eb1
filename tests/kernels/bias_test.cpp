#include "kernels/bias/bias.h"

#include <gtest/gtest.h>

#include "engine/autograd/gradcheck.h"
#include "engine/ops/bias.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

TEST(Bias, hand_checked_numbers) {
  for (const Device device : devices()) {
    const Tensor x = Tensor::from<float>({1, 2, 3, -4, 5, -6}, {2, 3}, device),
                 b = Tensor::from<float>({1, 0, 2}, {3}, device);
    EXPECT_EQ(add_bias(x, b).to_vector<float>(), (std::vector<float>{2, 2, 5, -3, 5, -4}));
    EXPECT_EQ(add_bias_relu(x, b).to_vector<float>(), (std::vector<float>{2, 2, 5, 0, 5, 0}));
  }
}

TEST(Bias, gradients) {
  for (const auto f : {add_bias, add_bias_relu}) {
    const auto result = gradcheck([&](const auto& in) { return f(in[0], in[1]); },
                                  {randn({3, 2, 5}, 1, DType::kF64), randn({5}, 2, DType::kF64)});
    EXPECT_TRUE(result.ok) << result.message;
  }
}

TEST(Bias, errors) { EXPECT_THROW(add_bias(Tensor::zeros({2, 3}), Tensor::zeros({2})), Error); }

}  // namespace
}  // namespace retort::test
