#include "engine/ops/view.h"

#include <gtest/gtest.h>

#include "engine/autograd/gradcheck.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

TEST(View, hand_checked_numbers) {
  for (const Device device : devices()) {
    const Tensor x = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {3, 2}, device);
    EXPECT_EQ(reshape(x, {2, 3}).shape(), (Shape{2, 3}));
    EXPECT_EQ(slice_rows(x, 1, 2).to_vector<float>(), (std::vector<float>{3, 4}));
    EXPECT_EQ(concatenate({slice_rows(x, 2, 3), slice_rows(x, 0, 1)}).to_vector<float>(),
              (std::vector<float>{5, 6, 1, 2}));
  }
}

TEST(View, gradients) {
  const std::vector<Tensor> in{randn({3, 4}, 1, DType::kF64), randn({2, 4}, 2, DType::kF64)};
  const auto check = [&](auto f) {
    const auto result = gradcheck(f, in);
    EXPECT_TRUE(result.ok) << result.message;
  };
  check([](const std::vector<Tensor>& t) { return reshape(t[0], {2, 6}); });
  check([](const std::vector<Tensor>& t) { return slice_rows(t[0], 1, 3); });
  check([](const std::vector<Tensor>& t) { return concatenate({t[0], t[1], t[0]}); });
}

TEST(View, errors) {
  EXPECT_THROW(reshape(Tensor::zeros({3}), {2}), Error);
  EXPECT_THROW(slice_rows(Tensor::zeros({3}), 2, 4), Error);
  EXPECT_THROW(concatenate({}), Error);
  EXPECT_THROW(concatenate({Tensor::zeros({2, 3}), Tensor::zeros({2, 4})}), Error);
}

}  // namespace
}  // namespace retort::test
