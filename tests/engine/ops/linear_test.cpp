#include "engine/ops/linear.h"

#include <gtest/gtest.h>

#include <functional>

#include "engine/autograd/autograd.h"
#include "engine/ops/matmul.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

TEST(Linear, hand_checked_numbers) {
  for (const Device device : devices()) {
    Tensor x = Tensor::from<float>({1, 2, 3, 4}, {2, 2}, device),
           w = Tensor::from<float>({1, 0, 0, 1, 1, -1}, {3, 2}, device),
           b = Tensor::from<float>({10, 20, 30}, {3}, device);
    x.set_requires_grad(true);
    w.set_requires_grad(true);
    b.set_requires_grad(true);
    const Tensor y = linear(x, w, b);
    EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{11, 22, 29, 13, 24, 29}));
    y.backward(Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3}, device));
    EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{4, -1, 10, -1}));
    EXPECT_EQ(w.grad().to_vector<float>(), (std::vector<float>{13, 18, 17, 24, 21, 30}));
    EXPECT_EQ(b.grad().to_vector<float>(), (std::vector<float>{5, 7, 9}));
  }
}

TEST(Linear, equals_matmul_plus_bias_for_padded_and_stacked_rows) {
  for (const Device device : devices()) {
    const Tensor w = randn({5, 7}, 2).to(device), b = randn({5}, 3).to(device);
    const Tensor wide = randn({6, 16}, 1).to(device);
    const Tensor x = Tensor::wrap(wide.storage(), 0, {2, 3, 7}, DType::kF32, 16);
    const Tensor y = linear(x, w, b);
    EXPECT_EQ(y.shape(), (Shape{2, 3, 5}));
    const auto product =
                   matmul(Tensor::wrap(wide.storage(), 0, {6, 7}, DType::kF32, 16), w, false, true)
                       .to_vector<float>(),
               bias = b.to_vector<float>(), got = y.to_vector<float>();
    for (std::size_t i = 0; i < got.size(); ++i)
      EXPECT_TRUE(close(got[i], product[i] + bias[i % 5], 1.3e-6, 1e-6));
  }
}

TEST(Linear, empty_batch) {
  Tensor x = Tensor::empty({0, 4}), w = randn({3, 4}, 1), b = randn({3}, 2);
  w.set_requires_grad(true);
  b.set_requires_grad(true);
  const Tensor y = linear(x, w, b);
  EXPECT_EQ(y.shape(), (Shape{0, 3}));
  y.backward(Tensor::empty({0, 3}));
  EXPECT_EQ(b.grad().to_vector<float>(), (std::vector<float>{0, 0, 0}));
  EXPECT_EQ(w.grad().to_vector<float>(), std::vector<float>(12, 0.f));
}

TEST(Linear, wrong_shapes_throw) {
  EXPECT_THROW(linear(Tensor::zeros({2, 3}), Tensor::zeros({4, 2}), {}), Error);
  EXPECT_THROW(linear(Tensor::zeros({2, 3}), Tensor::zeros({4, 3}), Tensor::zeros({3})), Error);
  EXPECT_THROW(linear(Tensor::zeros({2, 3}), Tensor::zeros({4, 3}, DType::kF64), {}), Error);
  EXPECT_THROW(matmul(Tensor::zeros({2, 3}), Tensor::zeros({2, 3})), Error);
  EXPECT_THROW(matmul(Tensor::zeros({2, 3}), Tensor::zeros({3})), Error);
}

}  // namespace
}  // namespace retort::test
