#include "kernels/segment_sum/segment_sum.h"

#include <gtest/gtest.h>

#include "engine/autograd/gradcheck.h"
#include "engine/ops/segment_sum.h"
#include "kernels/common/parallel.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

Tensor i32(const std::vector<std::int32_t>& values, Device device = Device::kCpu) {
  return Tensor::from<std::int32_t>(values, {static_cast<std::int64_t>(values.size())}, device);
}

TEST(SegmentSum, hand_checked_numbers) {
  for (const Device device : devices()) {
    Tensor x = Tensor::from<float>({1, 2, 3, 4, 5, 6, 7, 8}, {4, 2}, device);
    x.set_requires_grad(true);
    const Tensor starts = i32({0, 1, 1, 3}, device);  // the last row belongs to no segment
    EXPECT_EQ(segment_sum(x, starts).to_vector<float>(), (std::vector<float>{1, 2, 0, 0, 8, 10}));
    const Tensor mean = segment_mean(x, starts);
    EXPECT_EQ(mean.to_vector<float>(), (std::vector<float>{1, 2, 0, 0, 4, 5}));
    mean.backward(Tensor::from<float>({1, 2, 3, 4, 6, 8}, {3, 2}, device));
    EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{1, 2, 3, 4, 3, 4, 0, 0}));
    const Tensor flat = Tensor::from<float>({1, 2, 3, 4}, {4}, device);
    EXPECT_EQ(segment_sum(flat, i32({1, 4}, device)).to_vector<float>(), (std::vector<float>{9}));
  }
}

TEST(SegmentSum, starts_of_ascending_segments) {
  for (const Device device : devices()) {
    using V = std::vector<std::int32_t>;
    EXPECT_EQ(segment_starts(i32({0, 0, 2, 2, 2, 5}, device), 7).to_vector<std::int32_t>(),
              (V{0, 2, 2, 5, 5, 5, 6, 6}));
    EXPECT_EQ(segment_starts(i32({3}, device), 4).to_vector<std::int32_t>(), (V{0, 0, 0, 0, 1}));
    EXPECT_EQ(segment_starts(Tensor::empty({0}, DType::kI32, device), 2).to_vector<std::int32_t>(),
              (V{0, 0, 0}));
  }
}

// Segments of every length, empty ones among them, that leave the last rows out.
std::vector<std::int32_t> some_starts(std::int64_t rows) {
  std::vector<std::int32_t> starts{0};
  for (std::int64_t at = 0, k = 0; at < rows; ++k) {
    at += k * 7 % 41;
    if (at <= rows) starts.push_back(static_cast<std::int32_t>(at));
  }
  return starts;
}

TEST(SegmentSum, equals_its_definition_on_every_device_at_edge_sizes) {
  const int before = thread_count();
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
    for (const std::int64_t rows : {0, 1, 7, 401})
      for (const std::int64_t columns : {1, 2, 7, 8, 31, 32, 33, 100})
        for (const bool mean : {false, true}) {
          const std::vector<std::int32_t> at = some_starts(rows);
          const auto n = static_cast<std::int64_t>(at.size()) - 1;
          const Tensor wide = randn({rows, columns + 3}, 1, dtype),
                       dy = randn({n, columns}, 2, dtype);
          const auto run = [&](Device device, bool composed) {
            Tensor x = wide.to(device).slice_columns(3, columns + 3);  // pitched, not aligned
            x.set_requires_grad(true);
            const Tensor starts = i32(at, device);
            const Tensor y = composed ? segment_sum_composed(x, starts, mean)
                             : mean   ? segment_mean(x, starts)
                                      : segment_sum(x, starts);
            if (n > 0) y.backward(dy.to(device));
            return std::pair{y.detach(), n > 0 ? x.grad() : Tensor::zeros({0})};
          };
          set_thread_count(1);
          const auto want = run(Device::kCpu, true), one = run(Device::kCpu, false);
          set_thread_count(3);
          for (const Device device : devices()) {
            const auto got = run(device, false), again = run(device, false);
            const double rtol = tolerance_of(dtype).rtol;
            EXPECT_TRUE(all_close(got.first, want.first, {rtol, 10 * rtol}))
                << name_of(dtype) << name_of(device) << rows << " x " << columns << mean;
            // The definition leaves rows of no segment out: of one that ends early, zeros.
            EXPECT_TRUE(all_close(got.second, want.second, {rtol, rtol}))
                << name_of(dtype) << name_of(device) << rows << " x " << columns << mean;
            EXPECT_TRUE(same_bytes(got.first, again.first));
            if (device == Device::kCpu) {
              EXPECT_TRUE(same_bytes(got.first, one.first));
              EXPECT_TRUE(same_bytes(got.second, one.second));
            }
          }
        }
  set_thread_count(before);
}

TEST(SegmentSum, gradients_agree_with_differences) {
  const Tensor starts = i32({0, 2, 2, 5});
  for (const auto f : {segment_sum, segment_mean})
    for (const Shape& shape : {Shape{6, 3}, Shape{6}}) {
      const auto result = gradcheck([&](const auto& in) { return f(in[0], starts); },
                                    {randn(shape, 1, DType::kF64)});
      EXPECT_TRUE(result.ok) << result.message;
    }
}

TEST(SegmentSum, one_long_segment_keeps_its_digits) {
  for (const Device device : devices()) {
    const Tensor x = Tensor::full({70000}, 0.1, DType::kF32, device);
    const double got = segment_sum(x, i32({0, 70000}, device)).item();
    EXPECT_NEAR(got, 70000.0 * static_cast<double>(0.1f), 7000 * 2e-6) << name_of(device);
  }
}

TEST(SegmentSum, errors) {
  const auto message = [](const auto& f) -> std::string {
    try {
      f();
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  const Tensor x = Tensor::zeros({4, 2});
  EXPECT_EQ(message([&] {
              segment_sum(x, i32({0, 3, 2}));
            }),
            "[segment_sum] expected ascending starts in [0, 4], got 2 at 2 after 3");
  EXPECT_EQ(message([&] {
              segment_mean(x, i32({0, 5}));
            }),
            "[segment_sum] expected ascending starts in [0, 4], got 5 at 1 after 0");
  EXPECT_EQ(message([&] {
              segment_starts(i32({0, 2, 1}), 3);
            }),
            "[segment_starts] expected ascending segments in [0, 3), got 1 in row 2");
  EXPECT_EQ(message([&] {
              segment_starts(i32({0, 3}), 3);
            }),
            "[segment_starts] expected ascending segments in [0, 3), got 3 in row 1");
  EXPECT_THROW(segment_sum(Tensor::zeros({2, 2, 2}), i32({0, 1})), Error);
  EXPECT_THROW(segment_sum(x, Tensor::zeros({2})), Error);
  EXPECT_THROW(segment_sum(x, {}), Error);
  // On CUDA starts are cut to what is there.
  if (cuda_available()) {
    const Tensor y = segment_sum(Tensor::full({4, 2}, 1, DType::kF32, Device::kCuda),
                                 i32({-3, 2, 1, 900}, Device::kCuda));
    EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{2, 2, 0, 0, 3, 3}));
  }
}

}  // namespace
}  // namespace retort::test
