#include "distill/losses/distillation_loss.h"

#include "engine/autograd/autograd.h"
#include "engine/runtime/device.h"

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

void check(const DistillationLossArgs& a) {
  const Tensor& s = a.student_logits;
  RETORT_CHECK(s.defined() && s.rank() == 2 && s.dim(1) >= 1,
               "[distillation_loss] expected student_logits (N, V) with V >= 1, got ",
               s.defined() ? s.shape().str() : "nothing");
  const std::int64_t rows = s.dim(0);
  const Device device = s.device();
  const Tensor& t = a.teacher_logits;
  RETORT_CHECK(!t.defined() || t.shape() == s.shape(),
               "[distillation_loss] expected teacher_logits ", s.shape(), ", got ",
               t.defined() ? t.shape().str() : "");
  RETORT_CHECK(!t.defined() || t.device() == device,
               "[distillation_loss] expected teacher_logits on ", name_of(device));
  RETORT_CHECK(t.defined() || a.targets.defined(),
               "[distillation_loss] expected teacher_logits, targets, or both");
  RETORT_CHECK(a.lambda.defined() || !t.defined() || !a.targets.defined(),
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

double parameter_of(const DistillationLossArgs& a) {
  return a.parameter == -1 ? kernels::default_parameter(a.divergence) : a.parameter;
}

template <class T>
T* pointer(const Tensor& t) {
  return t.defined() && t.numel() > 0 ? t.data<T>() : nullptr;
}

std::int32_t stride_of(const Tensor& t) { return t.defined() && t.numel() != 1 ? 1 : 0; }

}  // namespace

DistillationLossResult distillation_loss(const DistillationLossArgs& a) {
  check(a);
  const Tensor& s = a.student_logits;
  const std::int64_t rows = s.dim(0), classes = s.dim(1);
  const DType dtype = s.dtype();
  const Device device = s.device();
  const Tensor teacher =
      a.teacher_logits.defined() ? a.teacher_logits.detach().to(dtype) : Tensor();
  const bool wants_gradient = needs_grad(s);

  // Where the gradient goes. Columns between V and the pitch belong to it only if no other tensor
  // can see them: memory of our own, or logits that nobody shares.
  Tensor gradient;
  if (wants_gradient && a.consume_logits) {
    RETORT_CHECK(s.storage().use_count() == 1,
                 "[distillation_loss] expected consume_logits to get the only handle on the "
                 "student's logits, got one of ",
                 s.storage().use_count(), ": move the tensor into the arguments");
    static_cast<void>(s.raw());  // throws if they were consumed before
  } else if (wants_gradient) {
    const std::int64_t pitch = s.row_pitch();
    gradient = pitch > classes && pitch < classes + 64
                   ? Tensor::empty_pitched(s.shape(), pitch, dtype, device)
                   : Tensor::empty(s.shape(), dtype, device);
  }

  kernels::DistillLossArgs k;
  k.student = rows > 0 ? s.raw() : nullptr;
  k.teacher = teacher.defined() && rows > 0 ? teacher.raw() : nullptr;
  k.student_pitch = s.row_pitch();
  k.teacher_pitch = teacher.defined() ? teacher.row_pitch() : 0;
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

  DistillationLossResult r;
  r.total = Tensor::empty({}, dtype == DType::kF64 ? dtype : DType::kF32, device);
  r.invalid_row = Tensor::empty({}, DType::kI32, device);
  k.total = r.total.raw();
  k.invalid_row = r.invalid_row.data<std::int32_t>();
  if (a.statistics) {
    const Tensor block = Tensor::empty({kernels::kRowStatistics, rows}, DType::kF32, device);
    const Tensor argmax = Tensor::empty({2, rows}, DType::kI32, device);
    const Tensor correct = Tensor::empty({2, rows}, DType::kU8, device);
    if (rows > 0) {
      k.statistics = block.data<float>();
      k.argmax = argmax.data<std::int32_t>();
      k.correct = correct.data<std::uint8_t>();
    }
    const auto row = [rows](const Tensor& t, std::int64_t i) {
      return t.slice(i, i + 1).view({rows});
    };
    r.ce = row(block, kernels::kStatCe);
    r.kd = row(block, kernels::kStatKd);
    r.student_confidence = row(block, kernels::kStatStudentConfidence);
    r.teacher_confidence = row(block, kernels::kStatTeacherConfidence);
    r.teacher_log_confidence = row(block, kernels::kStatTeacherLogConfidence);
    r.teacher_max_logit = row(block, kernels::kStatTeacherMaxLogit);
    r.teacher_margin = row(block, kernels::kStatTeacherMargin);
    r.teacher_entropy = row(block, kernels::kStatTeacherEntropy);
    r.teacher_p_true = row(block, kernels::kStatTeacherPTrue);
    r.teacher_log_p_true = row(block, kernels::kStatTeacherLogPTrue);
    r.student_argmax = row(argmax, 0);
    r.teacher_argmax = row(argmax, 1);
    r.student_correct = row(correct, 0);
    r.teacher_correct = row(correct, 1);
  }
  if (wants_gradient) {
    const std::int64_t pitch = gradient.defined() ? gradient.row_pitch() : s.row_pitch();
    const Storage& memory = gradient.defined() ? *gradient.storage() : *s.storage();
    const std::int64_t offset = gradient.defined() ? 0 : s.storage_offset();
    const bool padding_exists =
        static_cast<std::size_t>(offset + rows * pitch) * size_of(dtype) <= memory.bytes();
    k.dstudent = rows == 0 ? nullptr : gradient.defined() ? gradient.raw() : s.raw();
    k.dstudent_pitch = pitch;
    k.gradient_padding = padding_exists && pitch > classes ? pitch - classes : 0;
  }
  kernels::distill_loss(context_of(device), k);
  if (!wants_gradient) return r;

  if (a.consume_logits)
    gradient = Tensor::wrap(s.storage()->consume("distillation_loss (consume_logits)"),
                            s.storage_offset(), s.shape(), dtype, s.row_pitch());
  // Saved: the gradient itself. It is ours alone and backward runs once, so it is scaled in place;
  // where the upstream gradient is 1 (read on the device) it is not even touched.
  r.total = record("distillation_loss", r.total, {s}, [gradient](const Tensor& dy) {
    kernels::scale_rows(context_of(gradient.device()),
                        {gradient.numel() > 0 ? gradient.raw() : nullptr, dy.raw(), gradient.rows(),
                         gradient.dim(1), gradient.row_pitch(), gradient.dtype()});
    return std::vector<Tensor>{gradient};
  });
  return r;
}

}  // namespace retort::distill
