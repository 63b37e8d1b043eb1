#include "engine/ops/linear.h"

#include <gtest/gtest.h>

#include "engine/autograd/gradcheck.h"
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

TEST(Linear, gradients_agree_with_differences) {
  const auto f = [](const std::vector<Tensor>& in) { return linear(in[0], in[1], in[2]); };
  EXPECT_TRUE(gradcheck(f, {randn({4, 3}, 1, DType::kF64), randn({5, 3}, 2, DType::kF64),
                            randn({5}, 3, DType::kF64)})
                  .ok);
  for (const bool ta : {false, true})
    for (const bool tb : {false, true}) {
      const auto result =
          gradcheck([=](const std::vector<Tensor>& in) { return matmul(in[0], in[1], ta, tb); },
                    {randn(ta ? Shape{3, 4} : Shape{4, 3}, 1, DType::kF64),
                     randn(tb ? Shape{2, 3} : Shape{3, 2}, 2, DType::kF64)});
      EXPECT_TRUE(result.ok) << ta << tb;
    }
}

TEST(Linear, cuda_gradients_equal_cpu_gradients) {
  if (!cuda_available()) GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    std::vector<Tensor> wanted;
    for (const Device device : devices()) {
      std::vector<Tensor> in{randn({33, 20}, 1, dtype).to(device),
                             randn({70, 20}, 2, dtype).to(device),
                             randn({70}, 3, dtype).to(device)};
      for (Tensor& t : in) t.set_requires_grad(true);
      const Tensor y = linear(in[0], in[1], in[2]);
      y.backward(randn({33, 70}, 4, dtype).to(device));
      std::vector<Tensor> got{y.detach()};
      for (const Tensor& t : in) got.push_back(t.grad());
      if (device == Device::kCpu) wanted = got;
      // Sums of up to 70 products of size 1: a few ulps of the largest partial sum.
      for (std::size_t i = 0; i < got.size(); ++i)
        EXPECT_TRUE(all_close(got[i].to(Device::kCpu), wanted[i],
                              {tolerance_of(dtype).rtol, dtype == DType::kF32 ? 2e-5 : 1e-2}))
            << name_of(dtype) << " " << i;
    }
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
