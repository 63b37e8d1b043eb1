#include "engine/ops/softmax.h"

#include <gtest/gtest.h>

#include <limits>

#include "engine/autograd/gradcheck.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "kernels/common/parallel.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

Tensor softmax_of(const Tensor& x, bool log) { return log ? log_softmax(x) : softmax(x); }

/// The gradient of sum(w * softmax(x)) or of its logarithm.
Tensor gradient_of(const Tensor& x, const Tensor& dy, bool log) {
  Tensor leaf = x.detach();
  leaf.set_requires_grad(true);
  softmax_of(leaf, log).backward(dy);
  return leaf.grad();
}

TEST(Softmax, hand_checked_numbers) {
  for (const Device device : devices()) {
    const Tensor x = Tensor::from<float>({0, std::log(3.0f), 5, 5}, {2, 2}, device);
    EXPECT_TRUE(all_close(softmax(x), Tensor::from<float>({0.25f, 0.75f, 0.5f, 0.5f}, {2, 2})));
    EXPECT_TRUE(all_close(log_softmax(x), Tensor::from<float>({std::log(0.25f), std::log(0.75f),
                                                               -std::log(2.0f), -std::log(2.0f)},
                                                              {2, 2})));
    const Tensor dy = Tensor::from<float>({1, 0, 1, 0}, {2, 2}, device);
    EXPECT_TRUE(all_close(gradient_of(x, dy, false),
                          Tensor::from<float>({0.1875f, -0.1875f, 0.25f, -0.25f}, {2, 2})));
    EXPECT_TRUE(all_close(gradient_of(x, dy, true),
                          Tensor::from<float>({0.75f, -0.75f, 0.5f, -0.5f}, {2, 2})));
  }
}

TEST(Softmax, edge_shapes_against_double) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF32, DType::kBF16})
      for (const std::int64_t v : {1, 2, 31, 32, 33, 1000, 1024, 1025, 1271})
        for (const bool log : {false, true}) {
          const Tensor x = randn({7, v}, 1, dtype, 5), dy = randn({7, v}, 2, dtype);
          const Tensor exact = softmax_of(x.to(DType::kF64), log);
          // f32: sums of a thousand rounded terms. bf16: one rounding, 2^-8.
          const Tolerance t = dtype == DType::kF32 ? Tolerance{1e-5, 1e-6} : Tolerance{4e-3, 1e-6};
          EXPECT_TRUE(all_close(softmax_of(x.to(device), log), exact, t)) << name_of(device) << v;
          // backward reads the rounded result, so in bf16 its error is that of y times a sum.
          const Tolerance g = dtype == DType::kF32 ? Tolerance{1e-5, 1e-5} : Tolerance{4e-2, 8e-2};
          EXPECT_TRUE(all_close(gradient_of(x.to(device), dy.to(device), log),
                                gradient_of(x.to(DType::kF64), dy.to(DType::kF64), log), g))
              << name_of(device) << " V = " << v << (log ? " log" : "");
        }
}

TEST(Softmax, no_rows_and_one_long_row) {
  for (const Device device : devices()) {
    EXPECT_EQ(softmax(Tensor::empty({0, 4}, DType::kF32, device)).numel(), 0);
    const Tensor x = randn({1, 50257}, 3, DType::kF32, 5);
    EXPECT_TRUE(all_close(log_softmax(x.to(device)), log_softmax(x.to(DType::kF64)), {1e-5, 1e-5}));
  }
}

TEST(Softmax, pitched_and_unaligned_views) {
  for (const Device device : devices())
    for (const std::int64_t v : {37, 1100})
      for (const std::int64_t offset : {0, 1, 3}) {
        const Tensor memory = randn({4 * (v + 6)}, 4).to(device);
        const Tensor x = Tensor::wrap(memory.storage(), offset, {3, v}, DType::kF32, v + 5);
        const Tensor flat = x.to(Device::kCpu).contiguous();
        EXPECT_TRUE(all_close(softmax(x), softmax(flat))) << name_of(device);
        EXPECT_TRUE(all_close(log_softmax(x), log_softmax(flat))) << name_of(device);
      }
}

TEST(Softmax, extreme_values) {
  for (const Device device : devices())
    for (const std::int64_t v : {8, 2048}) {
      std::vector<float> rows(static_cast<std::size_t>(3 * v), 100.0f);
      for (std::int64_t k = 0; k < v; ++k) {
        rows[static_cast<std::size_t>(v + k)] = k % 2 ? -100.0f : 100.0f;
        rows[static_cast<std::size_t>(2 * v + k)] = static_cast<float>(-kInf);
      }
      const Tensor x = Tensor::from(rows, {3, v}, device);
      const std::vector<double> p = softmax(x).to_vector<double>(),
                                l = log_softmax(x).to_vector<double>();
      const double n = static_cast<double>(v);
      for (std::int64_t k = 0; k < v; ++k) {
        const auto at = static_cast<std::size_t>(k);
        const auto size = static_cast<std::size_t>(v);
        EXPECT_NEAR(p[at], 1 / n, 1e-7);
        EXPECT_NEAR(l[at], -std::log(n), 1e-5);
        EXPECT_NEAR(p[size + at], k % 2 ? 0 : 2 / n, 1e-7);
        EXPECT_NEAR(l[size + at], (k % 2 ? -200.0 : 0.0) - std::log(n / 2), 1e-4);
        EXPECT_EQ(p[2 * size + at], 0);
        EXPECT_EQ(l[2 * size + at], -kInf);
      }
    }
}

TEST(Softmax, nan_shows) {
  for (const Device device : devices())
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), static_cast<float>(kInf)}) {
      const Tensor x = Tensor::from<float>({1, bad, 2}, {3}, device);
      EXPECT_TRUE(std::isnan(softmax(x).to_vector<double>()[1]));
      EXPECT_TRUE(std::isnan(log_softmax(x).to_vector<double>()[1]));
    }
}

TEST(Softmax, equals_the_composed_definition) {
  const Tensor x = randn({5, 9}, 6, DType::kF64);
  const Tensor e = exp(x), total = sum_rows(e);
  const std::vector<double> n = e.to_vector<double>(), d = total.to_vector<double>();
  const std::vector<double> p = softmax(x).to_vector<double>(),
                            l = log_softmax(x).to_vector<double>();
  for (std::size_t i = 0; i < p.size(); ++i) {
    EXPECT_NEAR(p[i], n[i] / d[i / 9], 1e-14);
    EXPECT_NEAR(l[i], std::log(n[i] / d[i / 9]), 1e-13);
  }
}

TEST(Softmax, gradcheck) {
  const Tensor x = randn({3, 4, 5}, 7, DType::kF64, 2);
  for (const bool log : {false, true}) {
    const auto f = [log](const std::vector<Tensor>& in) { return softmax_of(in[0], log); };
    const GradcheckResult result = gradcheck(f, {x}, 1e-6, 1e-8, 1e-6);
    EXPECT_TRUE(result.ok) << result.message;
  }
}

TEST(Softmax, twice_the_same_bits) {
  for (const Device device : devices()) {
    const Tensor x = randn({3, 3000}, 8).to(device);
    EXPECT_TRUE(same_bytes(softmax(x), softmax(x)));
  }
}

TEST(Softmax, what_has_no_last_dimension_is_refused) {
  EXPECT_THROW(softmax(Tensor()), Error);
  EXPECT_THROW(softmax(Tensor::zeros({})), Error);
  EXPECT_THROW(log_softmax(Tensor::zeros({3, 0})), Error);
  EXPECT_THROW(softmax(Tensor::zeros({3}, DType::kI32)), Error);
}

TEST(Softmax, the_same_bits_for_any_thread_count_alignment_and_pitch) {
  const int before = thread_count();
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
    for (const std::int64_t v : {3, 17, 2500}) {
      const Tensor x = randn({40, v}, 5, dtype, 4), dy = randn({40, v}, 6, dtype);
      const Tensor moved = Tensor::empty({40 * (v + 3) + 1}, dtype);
      const Tensor view = Tensor::wrap(moved.storage(), 1, {40, v}, dtype, v + 3);
      view.copy_from(x);
      for (const bool log : {false, true}) {
        set_thread_count(1);
        const Tensor y = softmax_of(x, log), dx = gradient_of(x, dy, log);
        for (const int threads : {2, 3}) {
          set_thread_count(threads);
          EXPECT_TRUE(same_bytes(softmax_of(view, log), y)) << v << name_of(dtype);
          EXPECT_TRUE(same_bytes(gradient_of(view, dy, log), dx)) << v << name_of(dtype);
        }
      }
    }
  set_thread_count(before);
}

TEST(Softmax, cpu_error_against_double) {
  // 64 rows of every width; the error of a probability as a share of the row's largest.
  for (const std::int64_t v : {2, 10, 100, 1000, 30000}) {
    const Tensor x = randn({64, v}, 7, DType::kF32, 5);
    const std::vector<double> got = softmax(x).to_vector<double>(),
                              want = softmax(x.to(DType::kF64)).to_vector<double>(),
                              log_got = log_softmax(x).to_vector<double>(),
                              log_want = log_softmax(x.to(DType::kF64)).to_vector<double>();
    const auto n = static_cast<std::size_t>(v);
    for (std::size_t row = 0; row < got.size(); row += n) {
      double most = 0;
      for (std::size_t k = row; k < row + n; ++k) most = std::max(most, want[k]);
      for (std::size_t k = row; k < row + n; ++k) {
        // exp and the sum of V terms, each rounded.
        ASSERT_LE(std::abs(got[k] - want[k]), 5e-7 * most) << v;
        // x - max - log sum, each rounded.
        ASSERT_LE(std::abs(log_got[k] - log_want[k]),
                  1e-7 * (2 + std::log(static_cast<double>(v)) + std::abs(log_want[k])))
            << v;
      }
    }
  }
}

}  // namespace
}  // namespace retort::test
