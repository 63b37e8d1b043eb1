#include "distill/step_meter.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string_view>
#include <utility>

#include "engine/distributed/communicator.h"
#include "engine/runtime/allocator.h"
#include "engine/runtime/device.h"
#include "kernels/step_statistics/step_statistics.h"
#include "nn/optim/slice_sum.h"

namespace retort::distill {

using kernels::StepColumn;

namespace {

constexpr std::int64_t kColumns = kernels::kMaxStepColumns;  // of a row: 128 bytes

// Rows are of the slices that have samples: of all, or, where samples are fewer, one each.
std::int64_t slice_of_row(std::int64_t row, std::int64_t samples, std::int64_t slices) {
  return samples >= slices ? row : ((row + 1) * slices + samples - 1) / samples - 1;
}

// The slices among [first, last) that have samples.
std::int64_t rows_of(std::int64_t samples, std::int64_t slices,
                     std::pair<std::int64_t, std::int64_t> here) {
  std::int64_t rows = 0;
  for (std::int64_t s = here.first; s < here.second; ++s) {
    const auto [first, last] = nn::slice_of(samples, slices, s);
    if (first < last) ++rows;
  }
  return rows;
}

// What a rank tells of a step: its names, if it ran any slice, and its rows.
void append(const ColumnNames& names, const std::vector<double>& values, std::string* out) {
  const auto number = [&](std::uint64_t n) {
    out->append(reinterpret_cast<const char*>(&n), sizeof n);
  };
  number(names.size());
  for (const auto& [name, per] : names) {
    number(static_cast<std::uint64_t>(per));
    number(name.size());
    out->append(name);
  }
  number(values.size());
  out->append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(double));
}

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}
  bool at_end() const { return text_.empty(); }
  std::string_view bytes(std::uint64_t n) {
    RETORT_CHECK_AS(kPeer, n <= text_.size(), "[step_meter] a rank sent less than it said");
    const std::string_view part = text_.substr(0, n);
    text_.remove_prefix(n);
    return part;
  }
  std::uint64_t number() {
    std::uint64_t n = 0;
    std::memcpy(&n, bytes(sizeof n).data(), sizeof n);
    return n;
  }

 private:
  std::string_view text_;
};

}  // namespace

void StepMeter::share_with(Communicator* ranks) {
  ranks_ = ranks != nullptr && ranks->size() > 1 ? ranks : nullptr;
}

StepMeter::StepMeter(std::int64_t capacity) : capacity_(capacity) {
  RETORT_CHECK(capacity >= 1, "[step_meter] expected a capacity of at least 1, got ", capacity);
}

std::int64_t StepMeter::begin_row(Device device, std::int64_t samples,
                                  std::span<const std::pair<std::string, double>> told,
                                  std::int64_t slices,
                                  std::optional<std::pair<std::int64_t, std::int64_t>> here) {
  const std::int64_t rows =
      rows_of(samples, slices, here.value_or(std::pair(std::int64_t{0}, slices)));
  if (!rows_.defined()) {
    const MemoryRoleScope role(MemoryRole::kWorkspace);
    rows_ = Tensor::zeros({std::max(capacity_, rows), kColumns}, DType::kF64, device);
  }
  RETORT_CHECK(rows_.device() == device, "[step_meter] expected steps on ",
               retort::name_of(rows_.device()), ", got one on ", retort::name_of(device));
  RETORT_CHECK(rows <= rows_.dim(0), "[step_meter] expected at most ", rows_.dim(0),
               " slices, got ", rows);
  if (used_ + rows > rows_.dim(0)) read();
  waiting_.push_back({used_, rows, slices, samples, {}, {told.begin(), told.end()}, {}});
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
  // Of two columns with one name the log would have one, and neither's value.
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string& name = names[i].first;
    const auto is_name = [&](const auto& column) { return column.first == name; };
    RETORT_CHECK(name != "loss" && std::none_of(names.begin(), names.begin() + i, is_name) &&
                     std::none_of(step->told.begin(), step->told.end(), is_name),
                 "[step] two terms, or a term and the step, give the column '", name, "'");
  }
  step->names = std::move(names);
}

void StepMeter::read() {
  if (waiting_.empty()) return;
  const std::vector<double> values =
      used_ == 0 ? std::vector<double>() : rows_.slice(0, used_).to_vector<double>();
  for (Waiting& step : waiting_) {
    const auto from = values.begin() + step.row * kColumns;
    step.values.assign(from, from + step.rows * kColumns);
    read_.push_back(std::move(step));
  }
  waiting_.clear();
  used_ = 0;
}

// Ranks have consecutive slices: their rows, one rank behind the other, are those of the batch.
void StepMeter::gather_rows() {
  std::string mine;
  for (const Waiting& step : read_) append(step.names, step.values, &mine);
  for (Waiting& step : read_) step.names.clear(), step.values.clear();
  for (const std::string& of_rank : ranks_->gather(mine)) {
    Reader reader(of_rank);
    for (Waiting& step : read_) {
      ColumnNames names(reader.number());
      for (auto& [name, per] : names) {
        per = static_cast<Per>(reader.number());
        name = reader.bytes(reader.number());
      }
      if (step.names.empty()) step.names = std::move(names);
      std::vector<double> values(reader.number());
      const std::string_view bytes = reader.bytes(values.size() * sizeof(double));
      std::memcpy(values.data(), bytes.data(), bytes.size());
      step.values.insert(step.values.end(), values.begin(), values.end());
    }
    RETORT_CHECK_AS(kPeer, reader.at_end(), "[step_meter] ranks have taken different steps");
  }
}

StepNumbers StepMeter::numbers_of(const Waiting& step) {
  StepNumbers numbers;
  std::array<double, kColumns> row{};
  const auto rows = static_cast<std::int64_t>(step.values.size()) / kColumns;
  for (std::int64_t r = 0; r < rows; ++r) {
    const double* const own = &step.values[static_cast<std::size_t>(r * kColumns)];
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
  return numbers;
}

std::vector<StepNumbers> StepMeter::take() {
  read();
  if (ranks_ != nullptr) gather_rows();
  std::vector<StepNumbers> steps;
  for (const Waiting& step : std::exchange(read_, {})) steps.push_back(numbers_of(step));
  return steps;
}

StepNumbers StepMeter::summary() {
  StepNumbers all;
  for (const StepNumbers& step : take()) all += step;
  return all;
}

}  // namespace retort::distill
