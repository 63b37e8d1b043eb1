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

TEST(Mse, cuda_and_composed_agree_at_edge_sizes) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
      for (const std::int64_t n : {1, 31, 32, 33, 255, 256, 257, 9001}) {
        const auto run = [&](auto f, Device where) {
          Tensor x = randn({n}, 1, dtype).to(where), t = randn({n}, 2, dtype).to(where);
          x.set_requires_grad(true);
          t.set_requires_grad(true);
          const Tensor y = f(x, t);
          y.backward(Tensor::full({}, 2.5, dtype, where));
          return std::vector<Tensor>{y.detach(), x.grad(), t.grad()};
        };
        const auto got = run(mse, device), again = run(mse, device), cpu = run(mse, Device::kCpu),
                   composed = run(mse_composed, Device::kCpu);
        const Tolerance t = tolerance_of(dtype);
        for (std::size_t i = 0; i < 3; ++i) {
          EXPECT_TRUE(all_close(got[i], cpu[i])) << name_of(device) << " n = " << n;
          // The composed op rounds to bf16 between its steps.
          EXPECT_TRUE(all_close(got[i], composed[i], {2 * t.rtol, t.atol}))
              << i << " " << name_of(dtype) << " n = " << n;
          EXPECT_TRUE(same_bytes(got[i], again[i]));
        }
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
