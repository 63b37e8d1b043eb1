#include "kernels/step_statistics/step_statistics.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using kernels::kMaxStepColumns;
using kernels::StepColumn;
using kernels::StepStatisticsArgs;

constexpr std::int64_t kPitch = 9;

// Three rows of numbers, of which `slot` names the middle one, and arrays to make columns of.
struct Step {
  Tensor loss, exact, ce, correct, targets, mask, numbers, slot;
  std::int64_t rows;
  Step(std::int64_t n, Device device) : rows(n) {
    loss = Tensor::full({}, 0.75, DType::kF32, device);
    exact = Tensor::full({}, 0.1, DType::kF64, device);
    ce = randn({n}, 1).to(device);
    correct = randint({n}, 3, 2).to(DType::kU8).to(device);
    targets = randint({n}, 4, 3).to(device);
    mask = randint({n}, 5, 2).to(DType::kU8).to(device);
    numbers = Tensor::full({3, kPitch}, -7, DType::kF64, device);
    slot = Tensor::full({}, 1, DType::kI64, device);
  }
  StepStatisticsArgs args(const std::vector<StepColumn>& columns) const {
    StepStatisticsArgs a;
    for (const StepColumn& column : columns) a.push(column);
    a.rows = rows;
    a.numbers = numbers.data<double>();
    a.pitch = kPitch;
    a.slot = slot.data<std::int64_t>();
    return a;
  }
  // One column of every kind; the targets that are 1 do not count.
  std::vector<StepColumn> columns() const {
    const auto* const y = targets.data<std::int32_t>();
    const std::uint8_t* const m = mask.data<std::uint8_t>();
    return {StepColumn::value(loss.data<float>()), StepColumn::value(exact.data<double>()),
            StepColumn::sum(ce.data<float>()),     StepColumn::sum(m),
            StepColumn::count(y, nullptr, 1),      StepColumn::count(y, m, 1),
            StepColumn::count(nullptr, m),         StepColumn::constant(2.5)};
  }
  std::vector<double> row(std::int64_t which) const {
    return numbers.slice(which, which + 1).to_vector<double>();
  }
};

TEST(StepStatistics, hand_checked_numbers) {
  for (const Device device : devices()) {
    const Step s(3, device);
    s.ce.copy_from(Tensor::from<float>({1, 2, 4}, {3}));
    s.targets.copy_from(Tensor::from<std::int32_t>({0, 1, 2}, {3}));
    s.mask.copy_from(Tensor::from<std::uint8_t>({1, 1, 0}, {3}));
    kernels::step_statistics(context_of(device), s.args(s.columns()));
    // The row that slot names, its first eight elements, and no other.
    EXPECT_EQ(s.row(1), (std::vector<double>{0.75, 0.1, 7, 2, 2, 1, 2, 2.5, -7}));
    EXPECT_EQ(s.row(0), std::vector<double>(kPitch, -7));
    EXPECT_EQ(s.row(2), std::vector<double>(kPitch, -7));
    // A further micro-batch with other columns, into row 0 of the memory given.
    StepStatisticsArgs a =
        s.args({StepColumn::constant(1), StepColumn::sum(static_cast<const float*>(nullptr)),
                StepColumn::sum(s.ce.data<float>()), StepColumn::count(nullptr)});
    a.numbers += kPitch;
    a.slot = nullptr;
    a.add = true;
    kernels::step_statistics(context_of(device), a);
    EXPECT_EQ(s.row(1), (std::vector<double>{1.75, 0.1, 14, 5, 2, 1, 2, 2.5, -7}));
  }
}

TEST(StepStatistics, as_many_columns_as_there_may_be) {
  for (const Device device : devices()) {
    const Step s(300, device);
    const Tensor numbers = Tensor::zeros({kMaxStepColumns}, DType::kF64, device);
    StepStatisticsArgs a = s.args({});
    for (int k = 0; k < kMaxStepColumns; ++k)
      a.push(k % 2 ? StepColumn::constant(k) : StepColumn::count(nullptr));
    EXPECT_THROW(a.push(StepColumn::constant(0)), Error);
    a.numbers = numbers.data<double>();
    a.pitch = kMaxStepColumns;
    a.slot = nullptr;
    kernels::step_statistics(context_of(device), a);
    const std::vector<double> got = numbers.to_vector<double>();
    for (std::size_t k = 0; k < got.size(); ++k)
      EXPECT_EQ(got[k], k % 2 ? static_cast<double>(k) : 300) << k;
  }
}

TEST(StepStatistics, counts_are_those_of_a_loop) {
  for (const Device device : devices()) {
    const Step s(777, device);
    kernels::step_statistics(context_of(device), s.args(s.columns()));
    const auto y = s.targets.to_vector<std::int32_t>();
    const auto m = s.mask.to_vector<std::uint8_t>();
    double labelled = 0, both = 0, masked = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      labelled += y[i] != 1;
      masked += m[i] != 0;
      both += y[i] != 1 && m[i] != 0;
    }
    const std::vector<double> row = s.row(1);
    EXPECT_EQ(row[3], masked);
    EXPECT_EQ(row[4], labelled);
    EXPECT_EQ(row[5], both);
    EXPECT_EQ(row[6], masked);
  }
}

// The order that the contract names, written out: a training log's bytes hang on it.
TEST(StepStatistics, sums_in_the_order_that_is_promised) {
  for (const std::int64_t n : {1, 31, 256, 257, 1000, 8191}) {
    const Step s(n, Device::kCpu);
    kernels::step_statistics(context_of(Device::kCpu), s.args(s.columns()));
    const std::vector<float> ce = s.ce.to_vector<float>();
    std::vector<double> lanes(256);
    for (std::size_t i = 0; i < ce.size(); ++i) lanes[i % 256] += static_cast<double>(ce[i]);
    double want = 0;
    for (std::size_t w = 0; w < 256; w += 32) {
      for (std::size_t half = 16; half > 0; half /= 2)
        for (std::size_t l = 0; l < half; ++l) lanes[w + l] += lanes[w + l + half];
      want += lanes[w];
    }
    EXPECT_EQ(s.row(1)[2], want) << n;
  }
}

TEST(StepStatistics, cuda_gives_the_bytes_of_the_cpu) {
  if (kernels::step_statistics_cuda == nullptr && !cuda_available())
    GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  for (const std::int64_t n : {0, 1, 7, 31, 32, 33, 255, 256, 257, 1000, 8191}) {
    const Step cpu(n, Device::kCpu), cuda(n, Device::kCuda);
    kernels::step_statistics(context_of(Device::kCpu), cpu.args(cpu.columns()));
    kernels::step_statistics(context_of(Device::kCuda), cuda.args(cuda.columns()));
    EXPECT_TRUE(same_bytes(cuda.numbers, cpu.numbers)) << n;
    double ce = 0;
    for (const float v : cpu.ce.to_vector<float>()) ce += static_cast<double>(v);
    EXPECT_TRUE(close(cpu.row(1)[2], ce, 1e-12, 1e-12));
  }
}

TEST(StepStatistics, what_is_not_finite_stays_so) {
  for (const Device device : devices()) {
    const Step s(4, device);
    s.loss.fill(std::numeric_limits<double>::quiet_NaN());
    s.ce.fill(std::numeric_limits<double>::infinity());
    kernels::step_statistics(context_of(device), s.args(s.columns()));
    EXPECT_TRUE(std::isnan(s.row(1)[0]));
    EXPECT_EQ(s.row(1)[2], std::numeric_limits<double>::infinity());
    EXPECT_EQ(s.row(1)[3], s.row(1)[6]);
  }
}

TEST(StepStatistics, errors) {
  const Step s(4, Device::kCpu);
  const auto bad = [&](auto change, const std::string& message) {
    StepStatisticsArgs a = s.args(s.columns());
    change(a);
    try {
      kernels::step_statistics(context_of(Device::kCpu), a);
      ADD_FAILURE() << "expected an Error with " << message;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
    }
  };
  bad([](auto& a) { a.rows = -1; }, "rows >= 0");
  bad([](auto& a) { a.numbers = nullptr; }, "numbers");
  bad([](auto& a) { a.pitch = 7; }, "pitch >= 8, got 7");
  bad([](auto& a) { a.count = kMaxStepColumns + 1; }, "columns, got 17");
  bad([](auto& a) { a.columns[1].values = nullptr; }, "column 1");
}

}  // namespace
}  // namespace retort::test
