#include "kernels/reduce/reduce.h"

#include <gtest/gtest.h>

#include "engine/autograd/gradcheck.h"
#include "engine/ops/reduce.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

TEST(Reduce, hand_checked_numbers) {
  for (const Device device : devices()) {
    const Tensor x = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3}, device);
    EXPECT_EQ(sum(x).item(), 21);
    EXPECT_EQ(mean(x).item(), 3.5);
    EXPECT_EQ(sum_rows(x).to_vector<float>(), (std::vector<float>{6, 15}));
    EXPECT_EQ(column_sum(x).to_vector<float>(), (std::vector<float>{5, 7, 9}));
  }
}

TEST(Reduce, gradients) {
  for (const auto f : {sum, mean, sum_rows, column_sum}) {
    const auto result =
        gradcheck([&](const auto& in) { return f(in[0]); }, {randn({2, 3, 4}, 1, DType::kF64)});
    EXPECT_TRUE(result.ok) << result.message;
  }
}

TEST(Reduce, errors) {
  EXPECT_THROW(mean(Tensor::zeros({0})), Error);
  EXPECT_THROW(sum_rows(Tensor::scalar(1)), Error);
  EXPECT_THROW(sum(Tensor::zeros({3}, DType::kI32)), Error);
}

}  // namespace
}  // namespace retort::test
