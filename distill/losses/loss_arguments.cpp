#include "distill/losses/loss_arguments.h"

namespace retort::distill {
namespace {

void expect_vector(const char* name, const Tensor& t, DType dtype, std::int64_t size, bool scalar,
                   Device device) {
  if (!t.defined()) return;
  RETORT_CHECK(t.dtype() == dtype, "[distillation_loss] expected ", name, " of ", name_of(dtype),
               ", got ", name_of(t.dtype()));
  RETORT_CHECK((t.rank() == 1 && t.dim(0) == size) || (scalar && t.numel() == 1),
               "[distillation_loss] expected ", name, " ", scalar ? "a scalar or " : "", "(", size,
               "), got ", t.shape());
  RETORT_CHECK(t.device() == device, "[distillation_loss] expected ", name, " on ", name_of(device),
               ", got it on ", name_of(t.device()));
}

/// S: from the first per-sample tensor that is not a scalar, else N.
std::int64_t samples_of(const DistillationLossArgs& a, std::int64_t rows) {
  if (!a.sample_of_row.defined()) return rows;
  for (const Tensor* t : {&a.lambda, &a.temperature, &a.weights})
    if (t->defined() && t->rank() == 1 && t->numel() != 1) return t->numel();
  return a.sample_of_row.dim(0) > 0 ? std::int64_t{1} << 31 : 0;  // only scalars: any sample
}

double parameter_of(const DistillationLossArgs& a) {
  return a.parameter == -1 ? kernels::default_parameter(a.divergence) : a.parameter;
}

template <class T>
T* pointer(const Tensor& t) {
  return t.defined() && t.numel() > 0 ? t.data<T>() : nullptr;
}

std::int32_t stride_of(const Tensor& t) { return t.defined() && t.numel() != 1 ? 1 : 0; }

}  // namespace

void check_rows(const DistillationLossArgs& a, std::int64_t rows, bool has_teacher, Device device) {
  RETORT_CHECK(has_teacher || a.targets.defined(),
               "[distillation_loss] expected teacher_logits, targets, or both");
  RETORT_CHECK(a.lambda.defined() || !has_teacher || !a.targets.defined(),
               "[distillation_loss] expected lambda: teacher_logits and targets are both given");
  const std::int64_t samples = samples_of(a, rows);
  expect_vector("targets", a.targets, DType::kI32, rows, false, device);
  expect_vector("lambda", a.lambda, DType::kF32, samples, true, device);
  expect_vector("temperature", a.temperature, DType::kF32, samples, true, device);
  expect_vector("weights", a.weights, DType::kF32, samples, true, device);
  expect_vector("mask", a.mask, DType::kU8, rows, false, device);
  expect_vector("sample_of_row", a.sample_of_row, DType::kI32, rows, false, device);
  if (a.normalizer.defined())
    expect_vector("normalizer", a.normalizer, DType::kF32, 1, true, device);
}

kernels::DistillLossArgs kernel_arguments(const DistillationLossArgs& a, std::int64_t rows,
                                          std::int64_t classes, DType dtype) {
  kernels::DistillLossArgs k;
  k.targets = pointer<std::int32_t>(a.targets);
  k.lambda = pointer<float>(a.lambda);
  k.temperature = pointer<float>(a.temperature);
  k.mask = pointer<std::uint8_t>(a.mask);
  k.weights = pointer<float>(a.weights);
  k.sample_of_row = pointer<std::int32_t>(a.sample_of_row);
  k.normalizer = pointer<float>(a.normalizer);
  k.lambda_stride = stride_of(a.lambda);
  k.temperature_stride = stride_of(a.temperature);
  k.weights_stride = stride_of(a.weights);
  k.ignore_index = a.ignore_index;
  k.samples = samples_of(a, rows);
  k.rows = rows;
  k.classes = classes;
  k.dtype = dtype;
  k.divergence = a.divergence;
  k.parameter = parameter_of(a);
  k.tau_power = a.tau_power;
  return k;
}

kernels::DistillLossArgs slice_of(const kernels::DistillLossArgs& all, std::int64_t begin,
                                  std::int64_t end) {
  kernels::DistillLossArgs k = all;
  k.rows = end - begin;
  if (k.targets) k.targets += begin;
  if (k.mask) k.mask += begin;
  if (k.sample_of_row) {
    k.sample_of_row += begin;
    return k;
  }
  if (k.lambda) k.lambda += begin * k.lambda_stride;
  if (k.temperature) k.temperature += begin * k.temperature_stride;
  if (k.weights) k.weights += begin * k.weights_stride;
  return k;
}

StatisticsBlocks::StatisticsBlocks(std::int64_t rows, Device device)
    : statistics(Tensor::empty({kernels::kRowStatistics, rows}, DType::kF32, device)),
      argmax(Tensor::empty({2, rows}, DType::kI32, device)),
      correct(Tensor::empty({2, rows}, DType::kU8, device)) {}

void StatisticsBlocks::fill_in(kernels::DistillLossArgs& k) const {
  if (statistics.numel() == 0) return;
  k.statistics = statistics.data<float>();
  k.argmax = argmax.data<std::int32_t>();
  k.correct = correct.data<std::uint8_t>();
}

void StatisticsBlocks::name(DistillationLossResult& r) const {
  const auto row = [](const Tensor& t, std::int64_t i) {
    return t.slice(i, i + 1).view({t.dim(1)});
  };
  r.ce = row(statistics, kernels::kStatCe);
  r.kd = row(statistics, kernels::kStatKd);
  r.student_confidence = row(statistics, kernels::kStatStudentConfidence);
  r.teacher_confidence = row(statistics, kernels::kStatTeacherConfidence);
  r.teacher_log_confidence = row(statistics, kernels::kStatTeacherLogConfidence);
  r.teacher_max_logit = row(statistics, kernels::kStatTeacherMaxLogit);
  r.teacher_margin = row(statistics, kernels::kStatTeacherMargin);
  r.teacher_entropy = row(statistics, kernels::kStatTeacherEntropy);
  r.teacher_p_true = row(statistics, kernels::kStatTeacherPTrue);
  r.teacher_log_p_true = row(statistics, kernels::kStatTeacherLogPTrue);
  r.student_argmax = row(argmax, 0);
  r.teacher_argmax = row(argmax, 1);
  r.student_correct = row(correct, 0);
  r.teacher_correct = row(correct, 1);
}

void StatisticsBlocks::copy_from(const StatisticsBlocks& part, std::int64_t begin) const {
  const std::int64_t end = begin + part.statistics.dim(1);
  statistics.slice_columns(begin, end).copy_from(part.statistics);
  argmax.slice_columns(begin, end).copy_from(part.argmax);
  correct.slice_columns(begin, end).copy_from(part.correct);
}

}  // namespace retort::distill
