// Casts between any two types, packed and pitched, on the CPU and on CUDA. (The op belongs to
// kernels/elementwise.)
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/elementwise/elementwise.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

constexpr DType kAll[] = {DType::kF64, DType::kF32, DType::kBF16, DType::kF16,
                          DType::kI64, DType::kI32, DType::kU8};

// `rows` rows of `columns` values, behind each row `gap` elements that stay as they are.
Tensor cast_on(Device device, const Tensor& from, DType to_dtype, std::int64_t rows,
               std::int64_t columns, std::int64_t gap) {
  const Tensor there = from.to(device),
               to = Tensor::full({rows * (columns + gap)}, 7, to_dtype, device);
  kernels::cast(context_of(device), {to.raw(), there.raw(), to_dtype, from.dtype(), rows, columns,
                                     columns + gap, columns + gap});
  return to;
}

TEST(Cast, integers_keep_their_value_in_every_type) {
  std::vector<std::int32_t> values;
  for (int i = 0; i < 128; ++i) values.push_back(i);
  const Tensor numbers = Tensor::from(values, {128});
  for (const Device device : devices())
    for (const DType from : kAll)
      for (const DType to : kAll) {
        const Tensor got = cast_on(device, numbers.to(from), to, 1, 128, 0);
        const std::vector<double> v = got.to_vector<double>();
        for (std::size_t i = 0; i < v.size(); ++i)
          ASSERT_EQ(v[i], static_cast<double>(i))
              << name_of(from) << " to " << name_of(to) << " on " << name_of(device);
      }
}

TEST(Cast, integers_saturate_and_nan_becomes_zero) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  // what lies around a pack of four has another value, so that each is at each place
  const std::vector<double> edges{std::nan(""), kInf, -kInf, 1e30, -1e30, -1, -0.5, 254.5, 256};
  std::vector<double> values;
  for (int turn = 0; turn < 4; ++turn) {
    values.insert(values.end(), edges.begin(), edges.end());
    values.insert(values.end(), static_cast<std::size_t>(turn), 7.0);
  }
  const auto n = static_cast<std::int64_t>(values.size());
  const Tensor numbers = Tensor::from<double>(values, {n});
  const auto saturated = [](double v, double low, double high) {
    return std::isnan(v) ? 0.0 : std::trunc(std::clamp(v, low, high));
  };
  for (const Device device : devices())
    for (const DType from : {DType::kF64, DType::kF32, DType::kBF16, DType::kF16})
      for (const DType to : {DType::kI64, DType::kI32, DType::kU8}) {
        const std::vector<double> held = numbers.to(from).to_vector<double>(),
                                  got = cast_on(device, numbers.to(from), to, 1, n, 0)
                                            .to_vector<double>();
        for (std::size_t i = 0; i < held.size(); ++i) {
          const double want = to == DType::kU8    ? saturated(held[i], 0, 255)
                              : to == DType::kI32 ? saturated(held[i], -2147483648.0, 2147483647.0)
                                                  : saturated(held[i], -9223372036854775808.0,
                                                              9223372036854774784.0);
          ASSERT_EQ(got[i], want) << held[i] << " of " << name_of(from) << " to " << name_of(to)
                                  << " on " << name_of(device);
        }
      }
}

TEST(Cast, cuda_equals_cpu_for_every_pair_packed_and_pitched) {
  if (!cuda_available()) GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  for (const DType from : kAll)
    for (const DType to : kAll)
      for (const auto& [rows, columns, gap] :
           {std::tuple{1, 37, 0}, {3, 5, 2}, {1, 1, 0}, {2, 300, 1}}) {
        // fractions, both signs where the type has them, and what f32 cannot hold
        const double scale = from == DType::kU8 || to == DType::kU8 ? 0 : 40;
        const Tensor values = scale == 0
                                  ? randint({rows * (columns + gap)}, 1, 256).to(from)
                                  : randn({rows * (columns + gap)}, 1, DType::kF64, scale).to(from);
        EXPECT_TRUE(same_bytes(cast_on(Device::kCuda, values, to, rows, columns, gap),
                               cast_on(Device::kCpu, values, to, rows, columns, gap)))
            << name_of(from) << " to " << name_of(to) << ", " << rows << " x " << columns
            << " with a gap of " << gap;
      }
}

}  // namespace
}  // namespace retort::test
