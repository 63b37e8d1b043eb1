#include "kernels/bias/bias.h"

#include <gtest/gtest.h>

#include "engine/autograd/gradcheck.h"
#include "engine/ops/bias.h"
#include "engine/ops/elementwise.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

constexpr Activation kAll[] = {Activation::kNone, Activation::kRelu, Activation::kGelu,
                               Activation::kGeluTanh, Activation::kTanh};

// The definition in ordinary ops.
Tensor composed(const Tensor& x, const Tensor& bias, Activation f) {
  const Tensor z = add_bias(x, bias);
  switch (f) {
    case Activation::kRelu: return relu(z);
    case Activation::kGelu: return gelu(z);
    case Activation::kGeluTanh: return gelu_tanh(z);
    case Activation::kTanh: return tanh(z);
    default: return z;
  }
}

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
        for (const Activation f : kAll) {
          const auto run = [&](Device device) {
            Tensor x = randn({rows, columns}, 1, dtype).to(device),
                   b = randn({columns}, 2, dtype).to(device);
            x.set_requires_grad(true);
            b.set_requires_grad(true);
            const Tensor y = add_bias(x, b, f);
            y.backward(randn({rows, columns}, 3, dtype).to(device));
            return std::vector<Tensor>{y.detach(), x.grad(), b.grad()};
          };
          const auto cpu = run(Device::kCpu), cuda = run(Device::kCuda), again = run(Device::kCuda);
          for (std::size_t i = 0; i < 3; ++i) {
            // A column sum of terms that cancel: close relative to what was added.
            const Tolerance t = tolerance_of(dtype);
            EXPECT_TRUE(all_close(cuda[i], cpu[i], {t.rtol, i == 2 ? 10 * t.rtol : t.atol}))
                << name_of(f) << " output " << i << " " << name_of(dtype) << " " << rows << " x "
                << columns;
            EXPECT_TRUE(same_bytes(cuda[i], again[i]));
          }
        }
      }
}

TEST(Bias, every_activation_is_the_composition) {
  for (const DType dtype : {DType::kF64, DType::kF32})
    for (const Activation f : kAll) {
      const auto run = [&](bool fused) {
        Tensor x = randn({33, 70}, 1, dtype), bias = randn({70}, 2, dtype);
        x.set_requires_grad(true);
        bias.set_requires_grad(true);
        const Tensor y = fused ? add_bias(x, bias, f) : composed(x, bias, f);
        y.backward(randn({33, 70}, 3, dtype));
        return std::vector<Tensor>{y.detach(), x.grad(), bias.grad()};
      };
      const auto one = run(true), two = run(false);
      for (std::size_t i = 0; i < 3; ++i)
        EXPECT_TRUE(all_close(one[i], two[i])) << name_of(f) << i << name_of(dtype);
      for (std::size_t i = 0; f == Activation::kRelu && i < 2; ++i)
        EXPECT_TRUE(same_bytes(one[i], two[i]));
    }
}

TEST(Bias, known_values_of_the_activations) {
  // gelu(1) = Phi(1); its tanh form by hand; tanh(1).
  for (const Device device : devices()) {
    const Tensor x = Tensor::from<double>({0.25, -3, NAN}, {3, 1}, device),
                 b = Tensor::from<double>({0.75}, {1}, device);
    for (const auto& [f, want] : {std::pair{Activation::kGelu, 0.84134474606854293},
                                  {Activation::kGeluTanh, 0.84119199060827676},
                                  {Activation::kTanh, 0.76159415595576485},
                                  {Activation::kRelu, 1.0},
                                  {Activation::kNone, 1.0}}) {
      const auto y = add_bias(x, b, f).to_vector<double>();
      EXPECT_NEAR(y[0], want, 1e-14) << name_of(f) << name_of(device);
      EXPECT_TRUE(std::isnan(y[2])) << name_of(f);
    }
  }
}

TEST(Bias, gradients) {
  for (const Activation f : kAll) {
    const auto result = gradcheck([&](const auto& in) { return add_bias(in[0], in[1], f); },
                                  {randn({3, 2, 5}, 1, DType::kF64), randn({5}, 2, DType::kF64)});
    EXPECT_TRUE(result.ok) << name_of(f) << ": " << result.message;
  }
}

TEST(Bias, errors) {
  EXPECT_THROW(add_bias(Tensor::zeros({2, 3}), Tensor::zeros({2})), Error);
  float x[4] = {};
  const Context& cpu = context_of(Device::kCpu);
  EXPECT_THROW(kernels::bias_backward(
                   cpu, {x, x, x, nullptr, 2, 2, Activation::kGelu, DType::kF32, nullptr}),
               Error);
  EXPECT_THROW(kernels::bias_backward(cpu, {x, x, x, x, 2, 2, Activation::kRelu, DType::kF32, x}),
               Error);
}

}  // namespace
}  // namespace retort::test
