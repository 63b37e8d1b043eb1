#include "kernels/bias/bias.h"

#include <gtest/gtest.h>

#include "engine/autograd/gradcheck.h"
#include "engine/ops/bias.h"
#include "engine/ops/elementwise.h"
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

TEST(Bias, cuda_equals_cpu_at_edge_sizes) {
  if (!cuda_available()) GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
    for (const std::int64_t rows : {0, 1, 7, 65, 401})
      for (const std::int64_t columns : {1, 2, 31, 32, 33, 256, 1000}) {
        // The emulator is slow: large shapes in f32 only.
        if (rows * columns > (dtype == DType::kF32 ? 14000 : 3000)) continue;
        for (const auto f : {add_bias, add_bias_relu}) {
          const auto run = [&](Device device) {
            Tensor x = randn({rows, columns}, 1, dtype).to(device),
                   b = randn({columns}, 2, dtype).to(device);
            x.set_requires_grad(true);
            b.set_requires_grad(true);
            const Tensor y = f(x, b);
            y.backward(randn({rows, columns}, 3, dtype).to(device));
            return std::vector<Tensor>{y.detach(), x.grad(), b.grad()};
          };
          const auto cpu = run(Device::kCpu), cuda = run(Device::kCuda), again = run(Device::kCuda);
          for (std::size_t i = 0; i < 3; ++i) {
            // A column sum of terms that cancel: close relative to what was added.
            const Tolerance t = tolerance_of(dtype);
            EXPECT_TRUE(all_close(cuda[i], cpu[i], {t.rtol, i == 2 ? 10 * t.rtol : t.atol}))
                << "output " << i << " " << name_of(dtype) << " " << rows << " x " << columns;
            EXPECT_TRUE(same_bytes(cuda[i], again[i]));
          }
        }
      }
}

TEST(Bias, relu_is_the_composition) {
  const Tensor x = randn({33, 70}, 1), b = randn({70}, 2), dy = randn({33, 70}, 3);
  const auto run = [&](auto f) {
    Tensor leaf = x.clone(), bias = b.clone();
    leaf.set_requires_grad(true);
    bias.set_requires_grad(true);
    const Tensor y = f(leaf, bias);
    y.backward(dy);
    return std::vector<Tensor>{y.detach(), leaf.grad(), bias.grad()};
  };
  const auto one = run(add_bias_relu),
             two = run([](const Tensor&t, const Tensor&u) { return relu(add_bias(t, u)); });
  for (std::size_t i = 0; i < 3; ++i) EXPECT_TRUE(all_close(one[i], two[i])) << i;
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
