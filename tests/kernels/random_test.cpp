#include "kernels/random/random.h"

#include <gtest/gtest.h>

#include "engine/ops/random.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

const RandomKey kKey{42, 7, 3, path_hash("random_test")};

TEST(Random, elements_are_the_words_of_philox) {
  const Philox4 first = philox(42, 0, 7, 3, path_hash("random_test")),
                second = philox(42, 1, 7, 3, path_hash("random_test"));
  for (const Device device : devices()) {
    const Tensor u = Tensor::empty({6}, DType::kF32, device);
    fill_uniform(u, kKey);
    const auto got = u.to_vector<float>();
    for (std::size_t i = 0; i < 6; ++i)
      EXPECT_EQ(got[i], uniform01(i < 4 ? first.v[i] : second.v[i - 4])) << name_of(device);
    const Tensor s = Tensor::empty({130}, DType::kF32, device);
    fill_signs(s, kKey);
    const auto signs = s.to_vector<float>();
    EXPECT_EQ(signs[33], (first.v[1] >> 1 & 1) ? 1 : -1);
    EXPECT_EQ(signs[129], (second.v[0] >> 1 & 1) ? 1 : -1);
  }
}

TEST(Random, cuda_equals_cpu_and_tails_are_right) {
  if (!cuda_available()) GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
    for (const std::int64_t n : {0, 1, 31, 32, 33, 127, 128, 129, 255, 256, 257, 70001})
      for (int kind = 0; kind < 4; ++kind) {
        const auto make = [&](Device device) {
          const Tensor t = Tensor::full({n + 1}, 7, dtype, device), y = t.slice(0, n);
          if (kind == 0) fill_uniform(y, kKey, -0.3, 1.7);
          if (kind == 1) fill_bernoulli(y, kKey, 0.3);
          if (kind == 2) fill_signs(y, kKey);
          if (kind == 3) fill_normal(y, kKey, 1, 2);
          return t;
        };
        const Tensor cpu = make(Device::kCpu), cuda = make(Device::kCuda);
        EXPECT_TRUE(same_bytes(cuda, cpu))
            << "kind " << kind << " n = " << n << " " << name_of(dtype);
        EXPECT_EQ(cpu.slice(n, n + 1).item(), 7);
      }
}

TEST(Random, moments) {
  const auto moments = [](const Tensor& t) {
    double mean = 0, square = 0;
    for (const double v : t.to_vector<double>()) mean += v, square += v * v;
    mean /= static_cast<double>(t.numel());
    return std::pair{mean, square / static_cast<double>(t.numel()) - mean * mean};
  };
  const Tensor t = Tensor::empty({100000});
  fill_uniform(t, kKey);
  EXPECT_NEAR(moments(t).first, 0.5, 0.005);
  EXPECT_NEAR(moments(t).second, 1.0 / 12, 0.002);
  fill_normal(t, kKey, 3, 2);
  EXPECT_NEAR(moments(t).first, 3, 0.03);
  EXPECT_NEAR(moments(t).second, 4, 0.1);
  fill_bernoulli(t, kKey, 0.25);
  EXPECT_NEAR(moments(t).first, 0.25, 0.007);
  fill_signs(t, kKey);
  EXPECT_NEAR(moments(t).first, 0, 0.015);
  EXPECT_NEAR(moments(t).second, 1, 0.001);
}

// Against the same words through the functions of <cmath> in double.
TEST(Random, normal_variates_are_box_and_muller_s) {
  constexpr std::int64_t n = 400000;
  const Tensor t = Tensor::empty({n});
  fill_normal(t, kKey);
  const auto got = t.to_vector<float>();
  for (std::size_t i = 0; i < n; i += 2) {
    const Philox4 r = philox(42, static_cast<std::uint32_t>(i / 4), 7, 3, path_hash("random_test"));
    const std::uint32_t a = r.v[i % 4], b = r.v[i % 4 + 1];
    const double u = static_cast<double>((a >> 8) + 1) / 16777216.0,
                 angle = 6.283185307179586 * static_cast<double>(b >> 8) / 16777216.0,
                 radius = std::sqrt(-2 * std::log(u)), most = 2.5e-7 * radius + 1e-12;
    ASSERT_NEAR(got[i], radius * std::cos(angle), most) << "u = " << u << ", angle " << angle;
    ASSERT_NEAR(got[i + 1], radius * std::sin(angle), most) << "u = " << u << ", angle " << angle;
  }
}

TEST(Random, the_epoch_may_lie_on_the_device) {
  for (const Device device : devices()) {
    const Tensor a = Tensor::empty({100}, DType::kF32, device), b = a.clone();
    fill_uniform(a, {1, 2, 9, 4});
    fill_uniform(b, {1, 2, 0, 4}, 0, 1, Tensor::scalar(9, DType::kI64, device));
    EXPECT_TRUE(same_bytes(a, b));
  }
}

TEST(Random, errors) {
  EXPECT_THROW(fill_bernoulli(Tensor::zeros({2}), kKey, 1.5), Error);
  EXPECT_THROW(fill_uniform(Tensor::zeros({2}), kKey, 1, 0), Error);
  EXPECT_THROW(fill_uniform(Tensor::zeros({2}, DType::kI32), kKey), Error);
}

}  // namespace
}  // namespace retort::test
