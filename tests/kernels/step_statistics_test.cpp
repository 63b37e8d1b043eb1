#include "kernels/step_statistics/step_statistics.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using kernels::kStepColumns;
using kernels::StepColumn;

// Columns of every kind, as a step has them.
struct Rows {
  Tensor loss, wide, ce, correct, targets, mask, numbers, slot;
  std::int64_t rows;
  Rows(std::int64_t n, Device device) : rows(n) {
    loss = Tensor::full({}, 0.75, DType::kF32, device);
    wide = Tensor::full({}, 1.0 / 3, DType::kF64, device);
    ce = randn({n}, 1).to(device);
    correct = randint({n}, 3, 2).to(DType::kU8).to(device);
    targets = randint({n}, 4, 3).to(device);
    mask = randint({n}, 5, 2).to(DType::kU8).to(device);
    numbers = Tensor::full({3, kStepColumns}, -7, DType::kF64, device);
    slot = Tensor::full({}, 1, DType::kI64, device);
  }
  kernels::StepStatisticsArgs args() const {
    kernels::StepStatisticsArgs a;
    a.columns[0] = StepColumn::scalar(loss.raw(), DType::kF32);
    a.columns[1] = StepColumn::counted(rows ? targets.data<std::int32_t>() : nullptr, nullptr);
    a.columns[2] = StepColumn::sum(rows ? ce.data<float>() : nullptr);
    a.columns[3] = StepColumn::sum(rows ? correct.data<std::uint8_t>() : nullptr);
    a.columns[4] = StepColumn::scalar(wide.raw(), DType::kF64);
    a.columns[5] = StepColumn::constant_of(2.5);
    a.columns[6] = StepColumn::counted(rows ? targets.data<std::int32_t>() : nullptr,
                                       rows ? mask.data<std::uint8_t>() : nullptr);
    a.count = 7;
    a.ignore_index = 1;
    a.numbers = numbers.data<double>();
    a.slot = slot.data<std::int64_t>();
    a.rows = rows;
    return a;
  }
};

TEST(StepStatistics, hand_checked_numbers) {
  for (const Device device : devices()) {
    Rows r(3, device);
    r.ce.copy_from(Tensor::from<float>({1, 2, 4}, {3}));
    r.correct.copy_from(Tensor::from<std::uint8_t>({1, 0, 1}, {3}));
    r.targets.copy_from(Tensor::from<std::int32_t>({1, 2, 0}, {3}));
    r.mask.copy_from(Tensor::from<std::uint8_t>({1, 0, 9}, {3}));
    kernels::step_statistics(context_of(device), r.args());
    std::vector<double> want(3 * kStepColumns, -7.0);
    const double row[7] = {0.75, 2, 7, 2, 1.0 / 3, 2.5, 1};
    std::copy(row, row + 7, &want[kStepColumns]);  // the row that slot names, and no other column
    EXPECT_EQ(r.numbers.to_vector<double>(), want) << name_of(device);
    // A further part, into row 0 of the memory given.
    kernels::StepStatisticsArgs a = r.args();
    a.numbers += kStepColumns;
    a.slot = nullptr;
    a.add = true;
    kernels::step_statistics(context_of(device), a);
    for (int k = 0; k < 7; ++k) want[static_cast<std::size_t>(kStepColumns + k)] = 2 * row[k];
    EXPECT_EQ(r.numbers.to_vector<double>(), want) << name_of(device);
  }
}

TEST(StepStatistics, cuda_equals_cpu_bit_for_bit_at_every_size) {
  if (!cuda_available()) GTEST_SKIP() << "no CUDA backend";
  for (const std::int64_t n : {0, 1, 2, 31, 32, 33, 255, 256, 257, 511, 1000, 4097}) {
    const Rows cpu(n, Device::kCpu), cuda(n, Device::kCuda);
    kernels::step_statistics(context_of(Device::kCpu), cpu.args());
    kernels::step_statistics(context_of(Device::kCuda), cuda.args());
    EXPECT_TRUE(same_bytes(cpu.numbers, cuda.numbers)) << n;
  }
}

// The order in which values are added is part of the contract: another order gives other bits.
TEST(StepStatistics, sums_in_the_order_of_its_contract) {
  const std::int64_t n = 777;
  const Rows r(n, Device::kCpu);
  kernels::step_statistics(context_of(Device::kCpu), r.args());
  const auto ce = r.ce.to_vector<float>();
  double lane[256] = {};
  for (std::size_t i = 0; i < ce.size(); ++i) lane[i % 256] += static_cast<double>(ce[i]);
  double total = 0;
  for (int w = 0; w < 8; ++w) {
    for (int d = 16; d > 0; d /= 2)
      for (int l = 0; l < d; ++l) lane[32 * w + l] += lane[32 * w + l + d];
    total += lane[32 * w];
  }
  EXPECT_EQ(r.numbers.to_vector<double>()[kStepColumns + 2], total);
}

TEST(StepStatistics, not_finite_values_show) {
  for (const Device device : devices())
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      Rows r(300, device);
      r.ce.slice(299, 300).fill(static_cast<double>(bad));
      kernels::step_statistics(context_of(device), r.args());
      EXPECT_FALSE(std::isfinite(r.numbers.to_vector<double>()[kStepColumns + 2]));
    }
}

TEST(StepStatistics, errors) {
  const Rows r(3, Device::kCpu);
  const Context context = context_of(Device::kCpu);
  const auto refused = [&](const auto& spoil) {
    kernels::StepStatisticsArgs a = r.args();
    spoil(a);
    EXPECT_THROW(kernels::step_statistics(context, a), Error);
  };
  refused([](auto& a) { a.rows = -1; });
  refused([](auto& a) { a.numbers = nullptr; });
  refused([](auto& a) { a.count = 0; });
  refused([](auto& a) { a.count = kStepColumns + 1; });
  refused([](auto& a) { a.columns[0].values = nullptr; });
  refused([](auto& a) { a.columns[2].values = nullptr; });
  EXPECT_THROW(StepColumn::scalar(r.loss.raw(), DType::kBF16), Error);
}

}  // namespace
}  // namespace retort::test
