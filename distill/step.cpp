#include "distill/step.h"

#include <algorithm>
#include <utility>

#include "engine/autograd/autograd.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "engine/runtime/allocator.h"
#include "engine/runtime/device.h"

namespace retort::distill {
namespace {

// The slice of a setting that belongs to rows [begin, end).
Tensor slice_of(const std::vector<float>& values, std::int64_t begin, std::int64_t end,
                Device device) {
  if (values.size() == 1)
    return Tensor::scalar(static_cast<double>(values[0]), DType::kF32, device);
  const std::span<const float> part(values.data() + begin, static_cast<std::size_t>(end - begin));
  return Tensor::from(part, {end - begin}, device);
}

template <class T>
std::span<const T> slice_of(std::span<const T> values, std::int64_t begin, std::int64_t end) {
  if (values.empty()) return values;
  return values.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
}

void mark(PhaseTimer* timer, Phase phase) {
  if (timer != nullptr) timer->mark(phase);
}

void add_mean(double& sum, const std::vector<float>& values) {
  for (const float v : values) sum += static_cast<double>(v);
}

// How many rows the loss does not ignore: f32 scalar, counted on their device. The distance of a
// target from -100 is 0 or at least 1, exactly so in f64, and d - max(d - 1, 0) makes that 0 or 1.
Tensor count_rows(const Tensor& targets) {
  const NoGrad no_grad;
  const Tensor distance = abs(add_scalar(
      targets.to(DType::kF64), -static_cast<double>(DistillationLossArgs{}.ignore_index)));
  return sum(subtract(distance, relu(add_scalar(distance, -1)))).to(DType::kF32);
}

}  // namespace

void check_batch(const StepBatch& batch) {
  RETORT_CHECK(batch.inputs.rank() >= 1, "[distill_step] expected inputs (B, ...), got ",
               batch.inputs.shape());
  const std::int64_t rows = batch.inputs.dim(0);
  const Tensor& t = batch.teacher_inputs;
  RETORT_CHECK(!t.defined() || (t.rank() >= 1 && t.dim(0) == rows),
               "[distill_step] expected teacher_inputs of ", rows, " rows, got ", t.shape());
  const Tensor& y = batch.targets;
  RETORT_CHECK(!y.defined() || (y.rank() == 1 && y.dim(0) == rows && y.dtype() == DType::kI32),
               "[distill_step] expected targets (", rows, ") of i32, got ", y.shape(), " of ",
               name_of(y.dtype()));
  const auto fits = [rows](std::size_t n) { return n == 0 || n == static_cast<std::size_t>(rows); };
  RETORT_CHECK(fits(batch.samples.size()), "[distill_step] expected samples of ", rows,
               " rows or none, got ", batch.samples.size());
  RETORT_CHECK(fits(batch.augment.size()), "[distill_step] expected augment of ", rows,
               " rows or none, got ", batch.augment.size());
}

bool asks_teacher(const StepSettings& settings, std::int64_t rows, bool has_teacher) {
  RETORT_CHECK(rows >= 1, "[distill_step] expected at least one sample");
  const auto count = static_cast<std::size_t>(rows);
  for (const auto* values : {&settings.lambda, &settings.temperature})
    RETORT_CHECK(values->size() == 1 || values->size() == count, "[distill_step] expected 1 or ",
                 rows, " values of lambda and temperature, got ", values->size());
  RETORT_CHECK(settings.micro_batch >= 0, "[distill_step] expected micro_batch >= 0, got ",
               settings.micro_batch);
  const bool asks = std::any_of(settings.lambda.begin(), settings.lambda.end(),
                                [](float lambda) { return lambda != 0; });
  RETORT_CHECK(!asks || has_teacher,
               "[distill_step] expected a teacher for a lambda that is not 0");
  return asks;
}

DistillationLossResult forward_backward(nn::Model& student, const Tensor& inputs,
                                        DistillationLossArgs args, PhaseTimer* timer) {
  args.student_logits = student.forward(inputs).logits;  // (b, V)
  mark(timer, Phase::kStudent);
  DistillationLossResult loss = distillation_loss(args);
  mark(timer, Phase::kLoss);
  loss.total.backward();
  mark(timer, Phase::kBackward);
  loss.total = loss.total.detach();
  return loss;
}

StepReport distill_step(const Teacher* teacher, nn::Model& student, const StepBatch& batch,
                        const StepSettings& settings, const Update& update) {
  check_batch(batch);
  const std::int64_t rows = batch.inputs.dim(0);
  const bool wants_teacher = asks_teacher(settings, rows, teacher != nullptr);
  const std::int64_t slice = settings.micro_batch == 0 ? rows : settings.micro_batch;
  const Tensor& teacher_inputs =
      batch.teacher_inputs.defined() ? batch.teacher_inputs : batch.inputs;
  const Device device = batch.inputs.device();

  Tensor normalizer;  // of one slice: the loss counts by itself
  if (slice < rows)
    normalizer = batch.targets.defined()
                     ? count_rows(batch.targets)
                     : Tensor::scalar(static_cast<double>(rows), DType::kF32, device);

  StepReport report;
  report.samples = rows;
  report.has_teacher = wants_teacher;
  for (std::int64_t begin = 0; begin < rows; begin += slice) {
    const std::int64_t end = std::min(begin + slice, rows);
    DistillationLossArgs args;
    if (wants_teacher)
      args.teacher_logits =
          teacher->logits(teacher_inputs.slice(begin, end), slice_of(batch.samples, begin, end),
                          slice_of(batch.augment, begin, end));  // (b, V)
    if (wants_teacher) mark(settings.timer, Phase::kTeacher);
    if (batch.targets.defined()) args.targets = batch.targets.slice(begin, end);
    if (wants_teacher) args.lambda = slice_of(settings.lambda, begin, end, device);
    if (wants_teacher) args.temperature = slice_of(settings.temperature, begin, end, device);
    args.normalizer = normalizer;
    args.divergence = settings.divergence;
    DistillationLossResult loss =
        forward_backward(student, batch.inputs.slice(begin, end), std::move(args), settings.timer);
    report.losses.push_back(loss.total);
    report.targets.push_back(batch.targets.defined() ? batch.targets.slice(begin, end) : Tensor());
    report.parts.push_back(std::move(loss));
  }
  update();
  mark(settings.timer, Phase::kUpdate);
  return report;
}

double StepReport::loss() const {
  double sum = 0;
  for (const Tensor& part : losses) sum += part.item();
  return sum;
}

StepStatistics StepReport::host() const {
  StepStatistics s;
  s.has_teacher = has_teacher;
  s.loss = loss();
  std::int64_t right = 0, teacher_right = 0;
  const auto append = [](auto& list, const Tensor& t) {
    using T = typename std::remove_reference_t<decltype(list)>::value_type;
    if (!t.defined()) return;
    const std::vector<T> values = t.to_vector<T>();
    list.insert(list.end(), values.begin(), values.end());
  };
  std::vector<std::uint8_t> teacher_correct;
  std::vector<float> confidence;  // 0 of ignored rows
  for (const DistillationLossResult& part : parts) {
    append(s.ce, part.ce);
    append(s.kd, part.kd);
    append(s.correct, part.student_correct);
    append(teacher_correct, part.teacher_correct);
    append(confidence, part.student_confidence);
  }
  s.samples = confidence.empty() ? samples
                                 : std::count_if(confidence.begin(), confidence.end(),
                                                 [](float c) { return c != 0; });
  for (const std::uint8_t c : s.correct) right += c;
  for (const std::uint8_t c : teacher_correct) teacher_right += c;
  if (s.samples == 0 || parts.empty()) return s;
  const double n = static_cast<double>(s.samples);
  add_mean(s.loss_ce, s.ce);
  add_mean(s.loss_kd, s.kd);
  s.loss_ce /= n;
  s.loss_kd /= n;
  s.accuracy = static_cast<double>(right) / n;
  s.teacher_accuracy = static_cast<double>(teacher_right) / n;
  return s;
}

kernels::StepStatisticsArgs step_columns(const Tensor& loss, const DistillationLossResult* result,
                                         const Tensor& targets, std::int64_t rows) {
  using kernels::StepColumn;
  kernels::StepStatisticsArgs args;
  args.pitch = kStepNumbers;
  const bool measured = result != nullptr && result->ce.defined();
  args.rows = measured ? result->ce.dim(0) : rows;
  args.push(loss.dtype() == DType::kF64 ? StepColumn::value(loss.data<double>())
                                        : StepColumn::value(loss.data<float>()));
  args.push(StepColumn::sum(measured ? result->ce.data<float>() : nullptr));
  args.push(StepColumn::sum(measured ? result->kd.data<float>() : nullptr));
  using Flags = const std::uint8_t*;
  args.push(
      StepColumn::sum(measured ? Flags(result->student_correct.data<std::uint8_t>()) : Flags()));
  args.push(
      StepColumn::sum(measured ? Flags(result->teacher_correct.data<std::uint8_t>()) : Flags()));
  args.push(StepColumn::count(targets.defined() ? targets.data<std::int32_t>() : nullptr));
  return args;
}

StepMeter::StepMeter(std::int64_t capacity) : capacity_(capacity) {
  RETORT_CHECK(capacity >= 1, "[step_meter] expected a capacity of at least 1, got ", capacity);
}

std::int64_t StepMeter::begin_row(Device device, bool has_teacher) {
  if (!rows_.defined()) {
    const MemoryRoleScope role(MemoryRole::kWorkspace);
    rows_ = Tensor::zeros({capacity_, kStepNumbers}, DType::kF64, device);
  }
  RETORT_CHECK(rows_.device() == device, "[step_meter] expected steps on ", name_of(rows_.device()),
               ", got one on ", name_of(device));
  if (on_device_ == capacity_) read();
  has_teacher_ |= has_teacher;
  return on_device_++;
}

void StepMeter::add(const StepReport& report) {
  if (report.losses.empty()) return;
  const Device device = report.losses[0].device();
  const std::int64_t slot = begin_row(device, report.has_teacher);
  for (std::size_t i = 0; i < report.losses.size(); ++i) {
    const bool measured = i < report.parts.size();
    kernels::StepStatisticsArgs args = step_columns(
        report.losses[i], measured ? &report.parts[i] : nullptr,
        i < report.targets.size() ? report.targets[i] : Tensor(), i == 0 ? report.samples : 0);
    args.numbers = rows_.data<double>() + slot * kStepNumbers;
    args.add = i > 0;
    kernels::step_statistics(context_of(device), args);
  }
}

void StepMeter::read() {
  if (on_device_ == 0) return;
  const std::vector<double> values = rows_.slice(0, on_device_).to_vector<double>();
  for (std::size_t at = 0; at < values.size(); at += kStepNumbers) {
    const double* const row = &values[at];
    read_.push_back({row[kStepLoss], row[kStepCe], row[kStepKd], row[kStepCorrect],
                     row[kStepTeacherCorrect], static_cast<std::int64_t>(row[kStepSamples])});
  }
  on_device_ = 0;
}

std::vector<StepNumbers> StepMeter::take() {
  read();
  return std::exchange(read_, {});
}

StepStatistics StepMeter::summary() {
  StepStatistics sum;
  const std::vector<StepNumbers> steps = take();
  for (const StepNumbers& step : steps) {
    sum.loss += step.loss;
    sum.loss_ce += step.ce;
    sum.loss_kd += step.kd;
    sum.accuracy += step.correct;
    sum.teacher_accuracy += step.teacher_correct;
    sum.samples += step.samples;
  }
  sum.has_teacher = std::exchange(has_teacher_, false);
  if (sum.samples > 0) {
    const double n = static_cast<double>(sum.samples);
    sum.loss /= static_cast<double>(steps.size());
    sum.loss_ce /= n;
    sum.loss_kd /= n;
    sum.accuracy /= n;
    sum.teacher_accuracy /= n;
  }
  return sum;
}

}  // namespace retort::distill
