#include "kernels/step_statistics/step_statistics.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

struct Rows {
  Tensor loss, ce, kd, correct, teacher_correct, numbers, slot;
  std::int64_t rows;
  Rows(std::int64_t n, Device device, DType loss_dtype = DType::kF32) : rows(n) {
    loss = Tensor::full({}, 0.75, loss_dtype, device);
    ce = randn({n}, 1).to(device);
    kd = randn({n}, 2).to(device);
    correct = randint({n}, 3, 2).to(DType::kU8).to(device);
    teacher_correct = randint({n}, 4, 2).to(DType::kU8).to(device);
    numbers = Tensor::full({3, kernels::kStepNumbers}, -7, DType::kF64, device);
    slot = Tensor::full({}, 1, DType::kI64, device);
  }
  kernels::StepStatisticsArgs args() const {
    kernels::StepStatisticsArgs a;
    a.loss = loss.raw();
    a.ce = rows ? ce.data<float>() : nullptr;
    a.kd = rows ? kd.data<float>() : nullptr;
    a.correct = rows ? correct.data<std::uint8_t>() : nullptr;
    a.teacher_correct = rows ? teacher_correct.data<std::uint8_t>() : nullptr;
    a.numbers = numbers.data<double>();
    a.slot = slot.data<std::int64_t>();
    a.rows = rows;
    a.loss_dtype = loss.dtype();
    return a;
  }
};

TEST(StepStatistics, hand_checked_numbers) {
  for (const Device device : devices()) {
    Rows r(3, device);
    r.ce.copy_from(Tensor::from<float>({1, 2, 4}, {3}));
    r.kd.copy_from(Tensor::from<float>({0.5f, 0, 0.25f}, {3}));
    r.correct.copy_from(Tensor::from<std::uint8_t>({1, 0, 1}, {3}));
    r.teacher_correct.copy_from(Tensor::from<std::uint8_t>({1, 1, 1}, {3}));
    kernels::step_statistics(context_of(device), r.args());
    std::vector<double> want(24, -7.0);
    const double row[8] = {0.75, 7, 0.75, 2, 3, 3, 0, 0};
    std::copy(row, row + 8, &want[8]);  // the row that slot names, and no other
    EXPECT_EQ(r.numbers.to_vector<double>(), want) << name_of(device);
    // A further micro-batch, without a teacher, into row 0 of the memory given.
    kernels::StepStatisticsArgs a = r.args();
    a.numbers += 8;
    a.slot = nullptr;
    a.kd = nullptr;
    a.teacher_correct = nullptr;
    a.add = true;
    kernels::step_statistics(context_of(device), a);
    const double sum[8] = {1.5, 14, 0.75, 4, 3, 6, 0, 0};
    std::copy(sum, sum + 8, &want[8]);
    EXPECT_EQ(r.numbers.to_vector<double>(), want) << name_of(device);
  }
}

TEST(StepStatistics, rows_without_confidence_are_no_samples) {
  for (const Device device : devices()) {
    const Rows r(300, device);
    std::vector<float> confidence(300, 0.5f);
    for (std::size_t i = 0; i < 300; i += 7) confidence[i] = 0;
    confidence[1] = std::numeric_limits<float>::quiet_NaN();  // counts: the loss met it
    const Tensor given = Tensor::from(confidence, {300}, device);
    kernels::StepStatisticsArgs a = r.args();
    a.confidence = given.data<float>();
    kernels::step_statistics(context_of(device), a);
    EXPECT_EQ(r.numbers.to_vector<double>()[8 + kernels::kStepSamples], 300 - 43)
        << name_of(device);
  }
}

TEST(StepStatistics, cuda_gives_the_bytes_of_the_cpu) {
  if (kernels::step_statistics_cuda == nullptr && !cuda_available())
    GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  for (const std::int64_t n : {0, 1, 7, 31, 32, 33, 255, 256, 257, 1000, 8191})
    for (const DType dtype : {DType::kF32, DType::kF64}) {
      const Rows cpu(n, Device::kCpu, dtype), cuda(n, Device::kCuda, dtype);
      kernels::step_statistics(context_of(Device::kCpu), cpu.args());
      kernels::step_statistics(context_of(Device::kCuda), cuda.args());
      EXPECT_TRUE(same_bytes(cuda.numbers, cpu.numbers)) << n << " " << name_of(dtype);
      double ce = 0;
      for (const float v : cpu.ce.to_vector<float>()) ce += static_cast<double>(v);
      EXPECT_TRUE(close(cpu.numbers.to_vector<double>()[8 + kernels::kStepCe], ce, 1e-12, 1e-12));
    }
}

TEST(StepStatistics, a_loss_that_is_not_finite_stays_so) {
  for (const Device device : devices()) {
    Rows r(4, device);
    r.loss.fill(std::numeric_limits<double>::quiet_NaN());
    kernels::step_statistics(context_of(device), r.args());
    EXPECT_TRUE(std::isnan(r.numbers.to_vector<double>()[8]));
  }
}

TEST(StepStatistics, errors) {
  const Rows r(4, Device::kCpu);
  const auto bad = [&](auto change) {
    kernels::StepStatisticsArgs a = r.args();
    change(a);
    EXPECT_THROW(kernels::step_statistics(context_of(Device::kCpu), a), Error);
  };
  bad([](auto& a) { a.rows = -1; });
  bad([](auto& a) { a.loss = nullptr; });
  bad([](auto& a) { a.numbers = nullptr; });
  bad([](auto& a) { a.loss_dtype = DType::kBF16; });
}

}  // namespace
}  // namespace retort::test
