#include "kernels/elementwise/elementwise.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "engine/autograd/gradcheck.h"
#include "engine/ops/elementwise.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

struct UnaryCase {
  const char* name;
  std::function<Tensor(const Tensor&)> f;
  std::function<double(double)> g;
  double shift;  // moves the inputs where f is defined, or off its kink
};
const std::vector<UnaryCase>& unary_cases() {
  static const std::vector<UnaryCase> cases{
      {"scale", [](const Tensor& x) { return scale(x, -2.5); }, [](double x) { return -2.5 * x; },
       0},
      {"add_scalar", [](const Tensor& x) { return add_scalar(x, 3); },
       [](double x) { return x + 3; }, 0},
      {"relu", relu, [](double x) { return x > 0 ? x : 0; }, 0},
      {"exp", [](const Tensor& x) { return exp(x); }, [](double x) { return std::exp(x); }, 0},
      {"log", [](const Tensor& x) { return log(x); }, [](double x) { return std::log(x); }, 8},
      {"square", square, [](double x) { return x * x; }, 0},
      {"sqrt", [](const Tensor& x) { return sqrt(x); }, [](double x) { return std::sqrt(x); }, 8},
      {"tanh", [](const Tensor& x) { return tanh(x); }, [](double x) { return std::tanh(x); }, 0},
      {"abs", [](const Tensor& x) { return abs(x); }, [](double x) { return std::abs(x); }, 0},
      {"sigmoid", sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }, 0},
      {"gelu", gelu, [](double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }, 0},
  };
  return cases;
}

TEST(Elementwise, hand_checked_numbers) {
  for (const Device device : devices()) {
    const Tensor a = Tensor::from<float>({1, -2, 3}, {3}, device),
                 b = Tensor::from<float>({4, 5, -6}, {3}, device),
                 two = Tensor::from<float>({2}, {1}, device);
    using V = std::vector<float>;
    EXPECT_EQ(add(a, b).to_vector<float>(), (V{5, 3, -3})) << name_of(device);
    EXPECT_EQ(subtract(a, b).to_vector<float>(), (V{-3, -7, 9}));
    EXPECT_EQ(multiply(a, b).to_vector<float>(), (V{4, -10, -18}));
    EXPECT_EQ(divide(a, two).to_vector<float>(), (V{0.5, -1, 1.5}));
    EXPECT_EQ(multiply(a, two).to_vector<float>(), (V{2, -4, 6}));
    EXPECT_EQ(affine(a, 2, 1).to_vector<float>(), (V{3, -3, 7}));
    EXPECT_EQ(relu(a).to_vector<float>(), (V{1, 0, 3}));
    EXPECT_EQ(abs(a).to_vector<float>(), (V{1, 2, 3}));
    EXPECT_EQ(square(a).to_vector<float>(), (V{1, 4, 9}));
  }
}

TEST(Elementwise, values_of_every_function) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
      for (const UnaryCase& c : unary_cases()) {
        const Tensor x = randn({257}, 3, dtype, 1, c.shift);
        std::vector<double> want = x.to_vector<double>();
        for (double& v : want) v = c.g(v);
        EXPECT_TRUE(all_close(c.f(x.to(device)), Tensor::from(want, {257})))
            << c.name << " " << name_of(dtype) << " " << name_of(device);
      }
}

TEST(Elementwise, nan_goes_through) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const Device device : devices())
    for (const UnaryCase& c : unary_cases())
      EXPECT_TRUE(std::isnan(c.f(Tensor::full({1}, nan, DType::kF32, device)).item()))
          << c.name << " " << name_of(device);
}

TEST(Elementwise, gradients) {
  for (const UnaryCase& c : unary_cases()) {
    const auto result = gradcheck([&](const auto& in) { return c.f(in[0]); },
                                  {randn({2, 5}, 11, DType::kF64, 1, c.shift)});
    EXPECT_TRUE(result.ok) << c.name << ": " << result.message;
  }
  using F = Tensor (*)(const Tensor&, const Tensor&);
  for (const F f : {F{add}, F{subtract}, F{multiply}, F{divide}})
    for (const Shape& b : {Shape{2, 5}, Shape{1}, Shape{}}) {
      const auto result =
          gradcheck([&](const auto& in) { return f(in[0], in[1]); },
                    {randn({2, 5}, 1, DType::kF64), randn(b, 2, DType::kF64, 1, 5)});
      EXPECT_TRUE(result.ok) << b << ": " << result.message;
    }
  const auto same = gradcheck([](const auto& in) { return multiply(in[0], in[0]); },
                              {randn({4}, 1, DType::kF64)});
  EXPECT_TRUE(same.ok) << same.message;
}

TEST(Elementwise, mismatches_throw) {
  EXPECT_THROW(add(Tensor::zeros({2}), Tensor::zeros({3})), Error);
  EXPECT_THROW(add(Tensor::zeros({2}), Tensor::zeros({2}, DType::kF64)), Error);
  EXPECT_THROW(relu(Tensor::zeros({2}, DType::kI32)), Error);
}

}  // namespace
}  // namespace retort::test
