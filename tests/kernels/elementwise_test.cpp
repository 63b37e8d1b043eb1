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
      {"gelu_tanh", gelu_tanh,
       [](double x) {
         return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
       },
       0},
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

// Aligned and not, with a sentinel on either side, twice: into the middle of a longer array.
TEST(Elementwise, cuda_equals_cpu_at_edge_sizes) {
  if (!cuda_available()) GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  using kernels::Binary;
  using kernels::Unary;
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
    for (const std::int64_t n : {0, 1, 31, 32, 33, 255, 256, 257, 2057})
      for (const std::int64_t offset : {0, 1}) {
        const Tensor x = randn({n + 2}, 1, dtype, 1, 3), z = randn({n + 2}, 2, dtype, 1, 3);
        const auto run = [&](Device device, auto&& f) {
          const Tensor xs = x.to(device), zs = z.to(device),
                       out = Tensor::full({n + 2}, 7, dtype, device);
          f(context_of(device), out.slice(offset, offset + n), xs.slice(offset, offset + n),
            zs.slice(offset, offset + n));
          const auto values = out.to_vector<double>();
          for (std::int64_t i = 0; i < n + 2; ++i) {
            const bool outside = i < offset || i >= offset + n;
            EXPECT_TRUE(!outside || values[static_cast<std::size_t>(i)] == 7) << "sentinel " << i;
          }
          return out;
        };
        const auto check = [&](const char* name, auto&& f) {
          const Tensor cpu = run(Device::kCpu, f), cuda = run(Device::kCuda, f);
          EXPECT_TRUE(all_close(cuda, cpu))
              << name << " " << name_of(dtype) << " n = " << n << " offset " << offset;
          EXPECT_TRUE(same_bytes(cuda, run(Device::kCuda, f))) << name;
          EXPECT_TRUE(same_bytes(cpu, run(Device::kCpu, f))) << name;
        };
        for (int k = 0; k <= static_cast<int>(Unary::kGeluTanh); ++k) {
          const Unary op = static_cast<Unary>(k);
          if (op == Unary::kLog || op == Unary::kSqrt) continue;  // below, on positive numbers
          check(name_of(op),
                [&](const Context& c, const Tensor& y, const Tensor& a, const Tensor&) {
                  kernels::unary(c, {op, y.raw(), a.raw(), n, 0.5, 2, dtype});
                });
          check(name_of(op),
                [&](const Context& c, const Tensor& y, const Tensor& a, const Tensor& b) {
                  kernels::unary_backward(c, {op, y.raw(), a.raw(), b.raw(), n, 0.5, dtype});
                });
        }
        for (int k = 0; k <= static_cast<int>(Binary::kDivide); ++k)
          for (const bool scalar : {false, true}) {
            if (scalar && n == 0) continue;
            const Binary op = static_cast<Binary>(k);
            check(name_of(op),
                  [&](const Context& c, const Tensor& y, const Tensor& a, const Tensor& b) {
                    kernels::binary(c, {op, y.raw(), a.raw(), b.raw(), n, scalar, dtype});
                  });
          }
      }
}

TEST(Elementwise, cuda_equals_cpu_for_log_and_sqrt) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
      for (const bool is_log : {false, true}) {
        const auto run = [&](Device where) {
          Tensor x = square(randn({257}, 1, dtype, 1, 3)).to(where);
          x.set_requires_grad(true);
          const Tensor y = is_log ? log(x) : sqrt(x);
          y.backward(randn({257}, 2, dtype).to(where));
          return std::pair{y.detach(), x.grad()};
        };
        const auto got = run(device), want = run(Device::kCpu);
        EXPECT_TRUE(all_close(got.first, want.first)) << name_of(device) << name_of(dtype);
        EXPECT_TRUE(all_close(got.second, want.second)) << name_of(device) << name_of(dtype);
      }
}

// The two that want positive numbers, where no pack of 16 bytes begins.
TEST(Elementwise, log_and_sqrt_without_alignment) {
  using kernels::Unary;
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
      for (const Unary op : {Unary::kLog, Unary::kSqrt}) {
        constexpr std::int64_t kN = 259;
        const Tensor x = randn({kN + 1}, 1, dtype, 1, 8), dy = randn({kN + 1}, 2, dtype);
        const Tensor x_on = x.to(device).slice(1, kN + 1), dy_on = dy.to(device).slice(1, kN + 1);
        const Tensor y = Tensor::full({kN + 1}, 7, dtype, device), dx = y.clone();
        kernels::unary(context_of(device),
                       {op, y.slice(1, kN + 1).raw(), x_on.raw(), kN, 1, 0, dtype});
        const Tensor saved = kernels::backward_reads_result(op) ? y.slice(1, kN + 1) : x_on;
        kernels::unary_backward(context_of(device), {op, dx.slice(1, kN + 1).raw(), dy_on.raw(),
                                                     saved.raw(), kN, 1, dtype});
        std::vector<double> want = x.to_vector<double>(), want_dx = dy.to_vector<double>();
        for (std::size_t i = 1; i < want.size(); ++i) {
          want_dx[i] /= op == Unary::kLog ? want[i] : 2 * std::sqrt(want[i]);
          want[i] = op == Unary::kLog ? std::log(want[i]) : std::sqrt(want[i]);
        }
        want[0] = want_dx[0] = 7;
        EXPECT_TRUE(all_close(y, Tensor::from(want, {kN + 1}), tolerance_of(dtype)))
            << name_of(device) << " " << name_of(dtype) << " " << name_of(op);
        const Tolerance t = tolerance_of(dtype);
        EXPECT_TRUE(all_close(dx, Tensor::from(want_dx, {kN + 1}), {2 * t.rtol, t.atol}))
            << name_of(device) << " " << name_of(dtype) << " " << name_of(op);
      }
}

// Rows with gaps, and a first element where no pack begins; what lies beside them stays.
TEST(Elementwise, fill_of_every_type) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16, DType::kF16, DType::kI64,
                              DType::kI32, DType::kU8})
      for (const std::int64_t extra : {0, 3}) {
        constexpr std::int64_t kRows = 4, kColumns = 37;
        const std::int64_t pitch = kColumns + extra, n = kRows * pitch + 1;
        const Tensor memory = Tensor::full({n}, 2, dtype, device);
        kernels::fill(context_of(device),
                      {memory.slice(1, n).raw(), 5, dtype, kRows, kColumns, pitch});
        std::vector<double> want(static_cast<std::size_t>(n), 2);
        for (std::int64_t r = 0; r < kRows; ++r)
          for (std::int64_t c = 0; c < kColumns; ++c)
            want[static_cast<std::size_t>(1 + r * pitch + c)] = 5;
        EXPECT_EQ(memory.to_vector<double>(), want) << name_of(device) << " " << name_of(dtype);
      }
}

TEST(Elementwise, counters_advance_unless_skipped) {
  for (const Device device : devices()) {
    const Tensor counter = Tensor::scalar(3, DType::kI64, device),
                 skip = Tensor::scalar(0, DType::kI32, device);
    kernels::advance(context_of(device), {counter.data<std::int64_t>(), 2});
    EXPECT_EQ(counter.item(), 5) << name_of(device);
    kernels::advance(context_of(device),
                     {counter.data<std::int64_t>(), 1, skip.data<std::int32_t>()});
    EXPECT_EQ(counter.item(), 6);
    skip.fill(1);
    kernels::advance(context_of(device),
                     {counter.data<std::int64_t>(), 1, skip.data<std::int32_t>()});
    EXPECT_EQ(counter.item(), 6);
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
