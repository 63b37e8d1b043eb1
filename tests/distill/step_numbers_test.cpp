#include "distill/step_numbers.h"

#include <gtest/gtest.h>

#include <cmath>

#include "distill/step_meter.h"
#include "nn/optim/slice_sum.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using namespace distill;

TEST(StepNumbers, a_column_that_only_some_steps_have_is_a_mean_over_those) {
  StepNumbers a, b, c;
  a.steps = b.steps = c.steps = 1;
  a.samples = 8, b.samples = 8, c.samples = 4;
  a.rows = 8, b.rows = 6, c.rows = 4;
  a.add("loss", 3, 1), b.add("loss", 1, 1), c.add("loss", 5, 1);
  a.add("accuracy", 4, 8), b.add("accuracy", 6, 6), c.add("accuracy", 2, 4);
  b.add("loss_kd", 9, 6);
  c.add("loss_kd", 1, 4);
  a += b;
  a += c;
  EXPECT_EQ(a.steps, 3);
  EXPECT_EQ(a.samples, 20);
  EXPECT_EQ(a.rows, 18);
  EXPECT_EQ(a.loss(), 3);
  EXPECT_EQ(a.mean("accuracy"), 12 / 18.0);
  EXPECT_EQ(a.mean("loss_kd"), 1);  // 10 over the 10 rows of b and c
  EXPECT_EQ(a.sum("loss_kd"), 10);
  ASSERT_EQ(a.columns().size(), 3u);
  EXPECT_EQ(a.columns()[2].name, "loss_kd");
}

TEST(StepNumbers, what_is_not_there_is_no_number) {
  StepNumbers none;
  EXPECT_FALSE(none.has("loss"));
  EXPECT_TRUE(std::isnan(none.loss()));
  EXPECT_EQ(none.sum("loss"), 0);
  none.add("accuracy", 0, 0);  // no row counted
  EXPECT_TRUE(none.has("accuracy"));
  EXPECT_EQ(none.mean("accuracy"), 0);
}

TEST(StepMeter, rows_take_what_they_are_told) {
  for (const Device device : devices()) {
    StepMeter meter(2);
    for (int step = 0; step < 3; ++step) {
      const std::vector<std::pair<std::string, double>> told{{"lambda", 0.5 * step}};
      const std::int64_t row = meter.begin_row(device, 4, told);
      std::vector<Column> columns{{"right", Tensor::from<std::uint8_t>({1, 0, 1}, {3}, device)},
                                  {"extra", Tensor::scalar(2.0, DType::kF32, device), Per::kStep}};
      if (step == 2) columns.pop_back();
      const Tensor total = Tensor::scalar(1.0 + step, DType::kF64, device);
      meter.name_row(
          row, StepMeter::write(meter.rows(), row, {}, true, total,
                                Tensor::from<std::int32_t>({7, -100, 3}, {3}, device), 3, columns));
    }
    EXPECT_EQ(meter.size(), 3);
    const StepNumbers all = meter.summary();
    EXPECT_EQ(all.steps, 3);
    EXPECT_EQ(all.samples, 12);
    EXPECT_EQ(all.rows, 6);  // two of three targets count
    EXPECT_EQ(all.loss(), 2);
    EXPECT_EQ(all.mean("lambda"), 0.5);
    EXPECT_EQ(all.sum("right"), 6);
    EXPECT_EQ(all.mean("right"), 1);  // ignored rows hold 0 where a term writes it
    EXPECT_EQ(all.mean("extra"), 2);  // of the two steps that had it
    EXPECT_EQ(all.sum("extra"), 4);
    EXPECT_TRUE(meter.empty());
  }
}

TEST(StepMeter, a_part_without_targets_counts_all_its_rows) {
  StepMeter meter;
  const std::int64_t row = meter.begin_row(Device::kCpu, 10);
  const Tensor total = Tensor::scalar(0.25, DType::kF32);
  for (int part = 0; part < 2; ++part)
    meter.name_row(row, StepMeter::write(meter.rows(), row, {}, part == 0, total, {}, 5, {}));
  const StepNumbers s = meter.summary();
  EXPECT_EQ(s.rows, 10);
  EXPECT_EQ(s.loss(), 0.5);  // parts add up
  EXPECT_EQ(s.steps, 1);
}

TEST(StepMeter, rows_of_slices_are_added_in_their_order) {
  for (const Device device : devices()) {
    StepMeter meter(4);
    for (int step = 0; step < 3; ++step) {  // the second does not fit behind the first
      const std::int64_t row = meter.begin_row(device, 10, {}, 3);
      EXPECT_EQ(row, 0);
      const double totals[] = {1e17, -1e17, 1};
      for (const std::int64_t s : {2, 0, 1}) {  // whoever comes first
        const Tensor total = Tensor::scalar(totals[s], DType::kF64, device);
        meter.name_row(row,
                       StepMeter::write(meter.rows(), row + s, {}, true, total, {}, 3 + s, {}));
      }
    }
    const std::vector<StepNumbers> steps = meter.take();
    ASSERT_EQ(steps.size(), 3u);
    for (const StepNumbers& numbers : steps) {
      EXPECT_EQ(numbers.loss(), 1) << name_of(device);  // in any other order: 0
      EXPECT_EQ(numbers.rows, 12);
      EXPECT_EQ(numbers.samples, 10);
      EXPECT_EQ(numbers.steps, 1);
    }
    EXPECT_EQ(meter.begin_row(device, 2, {}, 4), 0);  // two samples: two slices have a row
    EXPECT_EQ(meter.begin_row(device, 2, {}, 4), 2);
    meter.drop_row();
    EXPECT_EQ(meter.begin_row(device, 1), 2);
    EXPECT_THROW(meter.name_row(7, {}), Error);
    EXPECT_THROW(meter.begin_row(device, 10, {}, 5), Error);
  }
}

TEST(StepMeter, the_first_slice_without_a_number_is_named) {
  const auto named = [](std::int64_t samples, std::int64_t slices, std::int64_t bad_row) {
    StepMeter meter(8);
    const std::int64_t row = meter.begin_row(Device::kCpu, samples, {}, slices);
    for (std::int64_t r = 0; r < std::min(samples, slices); ++r) {
      const Tensor total = Tensor::scalar(r >= bad_row ? std::nan("") : 1.0, DType::kF64);
      meter.name_row(row, StepMeter::write(meter.rows(), row + r, {}, true, total, {}, 1, {}));
    }
    return meter.take().at(0).bad_slice;
  };
  EXPECT_EQ(named(10, 4, 2), 2);
  EXPECT_EQ(named(10, 4, 9), -1);
  EXPECT_EQ(named(10, 1, 0), -1);                     // it has none
  for (const std::int64_t samples : {1, 2, 3, 5, 7})  // one sample to each slice that has any
    for (std::int64_t r = 0, s = 0; s < 8; ++s) {
      const auto [begin, end] = nn::slice_of(samples, 8, s);
      if (begin == end) continue;
      EXPECT_EQ(named(samples, 8, r), s) << samples;
      ++r;
    }
}

TEST(StepMeter, errors) {
  EXPECT_THROW(StepMeter(0), Error);
  StepMeter meter;
  const std::int64_t row = meter.begin_row(Device::kCpu, 1);
  const Tensor one = Tensor::scalar(1.0, DType::kF32);
  std::vector<Column> columns(14, Column{"c", one, Per::kStep});
  EXPECT_NO_THROW(StepMeter::write(meter.rows(), row, {}, true, one, {}, 1, columns));
  columns.push_back({"one too many", one, Per::kStep});
  EXPECT_THROW(StepMeter::write(meter.rows(), row, {}, true, one, {}, 1, columns), Error);
  EXPECT_THROW(meter.name_row(row, {{"loss", Per::kStep}}), Error);
  EXPECT_THROW(meter.name_row(row, {{"c", Per::kStep}, {"d", Per::kRow}, {"c", Per::kRow}}), Error);
  const std::pair<std::string, double> told{"lambda", 0.5};
  const std::int64_t next = meter.begin_row(Device::kCpu, 1, {&told, 1});
  EXPECT_THROW(meter.name_row(next, {{"lambda", Per::kStep}}), Error);
  EXPECT_NO_THROW(meter.name_row(next, {{"c", Per::kStep}, {"d", Per::kRow}}));
  if (!cuda_available()) return;
  EXPECT_THROW(meter.begin_row(Device::kCuda, 1), Error);
}

}  // namespace
}  // namespace retort::test
