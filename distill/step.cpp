#include "distill/step.h"

#include <algorithm>

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

void add_mean(double& sum, const std::vector<float>& values) {
  for (const float v : values) sum += static_cast<double>(v);
}

}  // namespace

StepReport distill_step(const Teacher* teacher, nn::Model& student, const StepBatch& batch,
                        const StepSettings& settings, const Update& update) {
  const std::int64_t rows = batch.inputs.dim(0);
  const auto count = static_cast<std::size_t>(rows);
  RETORT_CHECK(rows >= 1, "[distill_step] expected at least one sample");
  for (const auto* values : {&settings.lambda, &settings.temperature})
    RETORT_CHECK(values->size() == 1 || values->size() == count, "[distill_step] expected 1 or ",
                 rows, " values of lambda and temperature, got ", values->size());
  RETORT_CHECK(settings.micro_batch >= 0, "[distill_step] expected micro_batch >= 0, got ",
               settings.micro_batch);
  const bool wants_teacher = std::any_of(settings.lambda.begin(), settings.lambda.end(),
                                         [](float lambda) { return lambda != 0; });
  RETORT_CHECK(!wants_teacher || teacher != nullptr,
               "[distill_step] expected a teacher for a lambda that is not 0");
  const std::int64_t slice = settings.micro_batch == 0 ? rows : settings.micro_batch;
  const Tensor& teacher_inputs =
      batch.teacher_inputs.defined() ? batch.teacher_inputs : batch.inputs;
  const Device device = batch.inputs.device();
  const auto mark = [&](Phase phase) {
    if (settings.timer != nullptr) settings.timer->mark(phase);
  };

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
    if (wants_teacher) mark(Phase::kTeacher);
    args.student_logits = student.forward(batch.inputs.slice(begin, end)).logits;  // (b, V)
    mark(Phase::kStudent);
    if (batch.targets.defined()) args.targets = batch.targets.slice(begin, end);
    if (wants_teacher) args.lambda = slice_of(settings.lambda, begin, end, device);
    if (wants_teacher) args.temperature = slice_of(settings.temperature, begin, end, device);
    if (slice < rows)
      args.normalizer = Tensor::scalar(static_cast<double>(rows), DType::kF32, device);
    args.divergence = settings.divergence;
    DistillationLossResult loss = distillation_loss(args);
    mark(Phase::kLoss);
    loss.total.backward();
    mark(Phase::kBackward);
    loss.total = loss.total.detach();
    report.losses.push_back(loss.total);
    report.parts.push_back(std::move(loss));
  }
  update();
  mark(Phase::kUpdate);
  return report;
}

double StepReport::loss() const {
  double sum = 0;
  for (const Tensor& part : losses) sum += part.item();
  return sum;
}

StepStatistics StepReport::host() const {
  StepStatistics s;
  s.samples = samples;
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
  for (const DistillationLossResult& part : parts) {
    append(s.ce, part.ce);
    append(s.kd, part.kd);
    append(s.correct, part.student_correct);
    append(teacher_correct, part.teacher_correct);
  }
  for (const std::uint8_t c : s.correct) right += c;
  for (const std::uint8_t c : teacher_correct) teacher_right += c;
  if (samples == 0 || parts.empty()) return s;
  const double n = static_cast<double>(samples);
  add_mean(s.loss_ce, s.ce);
  add_mean(s.loss_kd, s.kd);
  s.loss_ce /= n;
  s.loss_kd /= n;
  s.accuracy = static_cast<double>(right) / n;
  s.teacher_accuracy = static_cast<double>(teacher_right) / n;
  return s;
}

StepStatistics StepMeter::summary() {
  StepStatistics sum;
  for (const StepReport& report : reports_) {
    const StepStatistics s = report.host();
    const double n = static_cast<double>(s.samples);
    sum.loss += s.loss;
    sum.loss_ce += s.loss_ce * n;
    sum.loss_kd += s.loss_kd * n;
    sum.accuracy += s.accuracy * n;
    sum.teacher_accuracy += s.teacher_accuracy * n;
    sum.samples += s.samples;
    sum.has_teacher |= s.has_teacher;
    sum.ce.insert(sum.ce.end(), s.ce.begin(), s.ce.end());
    sum.kd.insert(sum.kd.end(), s.kd.begin(), s.kd.end());
    sum.correct.insert(sum.correct.end(), s.correct.begin(), s.correct.end());
  }
  if (sum.samples > 0) {
    const double n = static_cast<double>(sum.samples);
    sum.loss /= static_cast<double>(reports_.size());
    sum.loss_ce /= n;
    sum.loss_kd /= n;
    sum.accuracy /= n;
    sum.teacher_accuracy /= n;
  }
  reports_.clear();
  return sum;
}

}  // namespace retort::distill
