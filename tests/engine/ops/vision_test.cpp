// Gradient checks, in double, of the ops that image networks add: batch norm, pooling, shortcut.
#include <gtest/gtest.h>

#include <array>

#include "engine/autograd/gradcheck.h"
#include "engine/ops/batch_norm.h"
#include "engine/ops/pool.h"
#include "engine/ops/shortcut.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using Tensors = std::vector<Tensor>;

TEST(VisionOps, batch_norm_gradients_with_every_switch) {
  for (int bits = 0; bits < 8; ++bits) {
    const bool training = bits & 1, relu = bits & 2, residual = bits & 4;
    for (const Shape& shape : {Shape{7, 3}, Shape{2, 3, 2, 4}}) {
      const Shape vector{shape[-1]};
      const auto f = [&](const Tensors& in) {
        // Fresh running statistics: f must be a pure function.
        const Tensor mean = Tensor::full(vector, 0.3, DType::kF64);
        const Tensor var = Tensor::full(vector, 1.7, DType::kF64);
        return batch_norm(in[0], in[1], in[2], mean, var, {training, 0.1, 1e-3, relu},
                          residual ? in[3] : Tensor{});
      };
      Tensors inputs{randn(shape, 1, DType::kF64), randn(vector, 2, DType::kF64, 0.2, 1),
                     randn(vector, 3, DType::kF64)};
      if (residual) inputs.push_back(randn(shape, 4, DType::kF64));
      const GradcheckResult result = gradcheck(f, inputs);
      EXPECT_TRUE(result) << shape.str() << " training " << training << " relu " << relu
                          << " residual " << residual << ": " << result.message;
    }
  }
}

TEST(VisionOps, only_the_gradients_asked_for_are_made) {
  Tensor weight = Tensor::full({3}, 1), bias = Tensor::zeros({3}), residual = randn({4, 3}, 1);
  for (Tensor* t : {&weight, &bias, &residual}) t->set_requires_grad(true);
  const Tensor x = randn({4, 3}, 2);
  batch_norm(x, weight, bias, {}, {}, {true, 0.1, 1e-5, true}, residual).backward(randn({4, 3}, 3));
  EXPECT_TRUE(weight.grad().defined() && bias.grad().defined() && residual.grad().defined());
  EXPECT_FALSE(x.requires_grad());
}

TEST(VisionOps, pooling_gradients) {
  const Tensor x = randn({2, 6, 5, 2}, 1, DType::kF64);
  for (const auto& [kernel, stride, padding] :
       {std::array{2, 2, 0}, std::array{3, 2, 1}, std::array{3, 1, 0}}) {
    const int k = kernel, s = stride, p = padding;
    EXPECT_TRUE(gradcheck([=](const Tensors& in) { return max_pool2d(in[0], k, s, p); }, {x}));
    EXPECT_TRUE(gradcheck([=](const Tensors& in) { return average_pool2d(in[0], k, s, p); }, {x}));
  }
  EXPECT_TRUE(gradcheck([](const Tensors& in) { return global_average_pool(in[0]); }, {x}));
}

TEST(VisionOps, shortcut_gradients) {
  const Tensor x = randn({2, 5, 4, 3}, 1, DType::kF64);
  for (const int stride : {1, 2})
    EXPECT_TRUE(gradcheck([=](const Tensors& in) { return shortcut_a(in[0], stride, 8); }, {x}));
}

// A tensor with padded rows, and a gradient with padded rows, are as good as contiguous ones.
TEST(VisionOps, rows_with_a_pitch_are_accepted) {
  for (const Device device : devices()) {
    const Tensor plain = randn({6, 5}, 1).to(device);
    Tensor pitched = Tensor::empty_pitched({6, 5}, 16, DType::kF32, device);
    pitched.copy_from(plain);
    const Tensor w = Tensor::full({5}, 1.5, DType::kF32, device);
    const Tensor b = Tensor::zeros({5}, DType::kF32, device);
    EXPECT_TRUE(
        same_bytes(batch_norm(pitched, w, b, {}, {}, {}), batch_norm(plain, w, b, {}, {}, {})));
  }
}

// A pointer that is not aligned to 16 bytes takes the scalar kernel.
TEST(VisionOps, unaligned_views_give_the_same_numbers) {
  for (const Device device : devices()) {
    const Tensor all = randn({9, 4}, 1).to(device).view({36});
    const Tensor odd = all.slice(1, 33).view({8, 4}), even = odd.clone();
    const Tensor w = Tensor::full({4}, 1.5, DType::kF32, device);
    const Tensor b = Tensor::zeros({4}, DType::kF32, device);
    EXPECT_TRUE(all_close(batch_norm(odd, w, b, {}, {}, {}), batch_norm(even, w, b, {}, {}, {})));
  }
}

}  // namespace
}  // namespace retort::test
