#include "distill/step_meter.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "engine/runtime/allocator.h"
#include "engine/runtime/device.h"
#include "kernels/step_statistics/step_statistics.h"

namespace retort::distill {

using kernels::StepColumn;

namespace {

constexpr std::int64_t kColumns = kernels::kMaxStepColumns;  // of a row: 128 bytes

// Rows are of the slices that have samples: of all, or, where samples are fewer, one each.
std::int64_t slice_of_row(std::int64_t row, std::int64_t samples, std::int64_t slices) {
  return samples >= slices ? row : ((row + 1) * slices + samples - 1) / samples - 1;
}

}  // namespace

StepMeter::StepMeter(std::int64_t capacity) : capacity_(capacity) {
  RETORT_CHECK(capacity >= 1, "[step_meter] expected a capacity of at least 1, got ", capacity);
}

std::int64_t StepMeter::begin_row(Device device, std::int64_t samples,
                                  std::span<const std::pair<std::string, double>> told,
                                  std::int64_t slices) {
  const std::int64_t rows = std::min(slices, samples);
  if (!rows_.defined()) {
    const MemoryRoleScope role(MemoryRole::kWorkspace);
    rows_ = Tensor::zeros({std::max(capacity_, rows), kColumns}, DType::kF64, device);
  }
  RETORT_CHECK(rows_.device() == device, "[step_meter] expected steps on ",
               retort::name_of(rows_.device()), ", got one on ", retort::name_of(device));
  RETORT_CHECK(rows <= rows_.dim(0), "[step_meter] expected at most ", rows_.dim(0),
               " slices, got ", rows);
  if (used_ + rows > rows_.dim(0)) read();
  waiting_.push_back({used_, rows, slices, samples, {}, {told.begin(), told.end()}});
  used_ += rows;
  return waiting_.back().row;
}

void StepMeter::drop_row() {
  used_ = waiting_.back().row;
  waiting_.pop_back();
}

// A row: the loss, how many rows count, then the columns of the terms.
ColumnNames StepMeter::write(const Tensor& meter_rows, std::int64_t row, const Tensor& slot,
                             bool first, const Tensor& total, const Tensor& targets,
                             std::int64_t rows, std::span<const Column> columns) {
  kernels::StepStatisticsArgs args;
  args.rows = rows;
  args.add = !first;
  args.pitch = kColumns;
  args.numbers = meter_rows.data<double>() + row * kColumns;
  args.slot = slot.defined() ? slot.data<std::int64_t>() : nullptr;
  const auto value = [](const Tensor& t) {
    return t.dtype() == DType::kF64 ? StepColumn::value(t.data<double>())
                                    : StepColumn::value(t.data<float>());
  };
  args.push(value(total));
  args.push(targets.defined() ? StepColumn::count(rows > 0 ? targets.data<std::int32_t>() : nullptr)
                              : StepColumn::constant(static_cast<double>(rows)));
  ColumnNames names;
  for (const Column& column : columns) {
    const Tensor& values = column.values;
    if (values.rank() == 0)
      args.push(value(values));
    else if (values.dtype() == DType::kU8)
      args.push(StepColumn::sum(rows > 0 ? values.data<std::uint8_t>() : nullptr));
    else
      args.push(StepColumn::sum(rows > 0 ? values.data<float>() : nullptr));
    names.emplace_back(column.name, column.per);
  }
  kernels::step_statistics(context_of(total.device()), args);
  return names;
}

void StepMeter::name_row(std::int64_t row, ColumnNames names) {
  const auto step = std::find_if(waiting_.rbegin(), waiting_.rend(),
                                 [&](const Waiting& w) { return w.row == row; });
  RETORT_CHECK(step != waiting_.rend(), "[step_meter] expected a row of a step, got ", row);
  step->names = std::move(names);
}

void StepMeter::read() {
  if (waiting_.empty()) return;
  const std::vector<double> values = rows_.slice(0, used_).to_vector<double>();
  for (const Waiting& step : waiting_) {
    StepNumbers numbers;
    std::array<double, kColumns> row{};
    for (std::int64_t r = 0; r < step.rows; ++r) {
      const double* const own = &values[static_cast<std::size_t>((step.row + r) * kColumns)];
      for (std::size_t k = 0; k < row.size(); ++k) row[k] = r == 0 ? own[k] : row[k] + own[k];
      if (step.slices > 1 && numbers.bad_slice < 0 && !std::isfinite(own[0]))
        numbers.bad_slice = slice_of_row(r, step.samples, step.slices);
    }
    numbers.steps = 1;
    numbers.samples = step.samples;
    numbers.rows = static_cast<std::int64_t>(row[1]);
    numbers.add("loss", row[0], 1);
    for (std::size_t k = 0; k < step.names.size(); ++k) {
      const auto& [name, per] = step.names[k];
      numbers.add(name, row[k + 2], per == Per::kRow ? row[1] : 1);
    }
    for (const auto& [name, value] : step.told) numbers.add(name, value, 1);
    read_.push_back(std::move(numbers));
  }
  waiting_.clear();
  used_ = 0;
}

std::vector<StepNumbers> StepMeter::take() {
  read();
  return std::exchange(read_, {});
}

StepNumbers StepMeter::summary() {
  StepNumbers all;
  for (const StepNumbers& step : take()) all += step;
  return all;
}

}  // namespace retort::distill
