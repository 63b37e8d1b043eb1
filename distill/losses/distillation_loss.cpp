#include "distill/losses/distillation_loss.h"

#include "distill/losses/loss_arguments.h"
#include "engine/autograd/autograd.h"
#include "engine/runtime/device.h"

namespace retort::distill {
namespace {

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
  check_rows(a, rows, t.defined(), device);
}

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

  kernels::DistillLossArgs k = kernel_arguments(a, rows, classes, dtype);
  k.student = rows > 0 ? s.raw() : nullptr;
  k.teacher = teacher.defined() && rows > 0 ? teacher.raw() : nullptr;
  k.student_pitch = s.row_pitch();
  k.teacher_pitch = teacher.defined() ? teacher.row_pitch() : 0;

  DistillationLossResult r;
  r.total = Tensor::empty({}, dtype == DType::kF64 ? dtype : DType::kF32, device);
  r.invalid_row = Tensor::empty({}, DType::kI32, device);
  k.total = r.total.raw();
  k.invalid_row = r.invalid_row.data<std::int32_t>();
  if (a.statistics) {
    const StatisticsBlocks blocks(rows, device);
    blocks.fill_in(k);
    blocks.name(r);
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
