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

// From the second element on, where no pack of 16 bytes begins.
TEST(Mse, without_alignment) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
      for (const std::int64_t n : {1, 33, 4099}) {
        const Tensor x = randn({n + 1}, 1, dtype), t = randn({n + 1}, 2, dtype);
        const Tensor x_on = x.to(device).slice(1, n + 1), t_on = t.to(device).slice(1, n + 1);
        const Tensor loss = Tensor::empty({}, dtype, device),
                     dloss = Tensor::full({}, 2.5, dtype, device),
                     dx = Tensor::full({n + 1}, 7, dtype, device), dt = dx.clone();
        kernels::mse(context_of(device), {loss.raw(), x_on.raw(), t_on.raw(), n, dtype});
        kernels::mse_backward(context_of(device),
                              {dx.slice(1, n + 1).raw(), dt.slice(1, n + 1).raw(), x_on.raw(),
                               t_on.raw(), dloss.raw(), n, dtype});
        const auto a = x.to_vector<double>(), b = t.to_vector<double>();
        double sum = 0;
        std::vector<double> want_dx(a.size(), 7), want_dt = want_dx;
        for (std::size_t i = 1; i < a.size(); ++i) {
          sum += (a[i] - b[i]) * (a[i] - b[i]);
          want_dx[i] = 2.5 * 2 * (a[i] - b[i]) / static_cast<double>(n);
          want_dt[i] = -want_dx[i];
        }
        const Tolerance tolerance = tolerance_of(dtype);
        EXPECT_TRUE(close(loss.item(), sum / static_cast<double>(n), tolerance.rtol, 1e-6))
            << name_of(device) << " " << name_of(dtype) << " n = " << n;
        EXPECT_TRUE(all_close(dx, Tensor::from(want_dx, {n + 1}), tolerance));
        EXPECT_TRUE(all_close(dt, Tensor::from(want_dt, {n + 1}), tolerance));
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
