// Note [Gradients in the forward pass]
//   The logits' gradient needs nothing that is not known when the loss is computed, but for the
//   factor that comes from above, which is 1 for a loss and otherwise one number. So one sweep over
//   the rows multiplies the logits out, turns them into their gradient, multiplies that on, and
//   forgets it. The price is a place of its own for the weight's gradient, since only backward may
//   touch the gradients of leaves. Recomputing has no such place: it sweeps twice.
#include "distill/losses/linear_distillation_loss.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "distill/losses/loss_arguments.h"
#include "engine/autograd/autograd.h"
#include "engine/ops/linear.h"
#include "engine/runtime/device.h"
#include "kernels/axpy/axpy.h"
#include "kernels/gemm/gemm.h"
#include "kernels/reduce/reduce.h"

namespace retort::distill {
namespace {

constexpr const char* kOp = "linear_distillation_loss";

void check_layer(const char* who, const Tensor& features, const nn::Head& head) {
  RETORT_CHECK(features.defined() && features.rank() == 2 && head.weight.defined() &&
                   head.weight.rank() == 2 && head.weight.dim(1) == features.dim(1),
               "[", kOp, "] expected ", who, " features (N, m) and a weight (V, m), got ",
               features.defined() ? features.shape().str() : "nothing", " and ",
               head.weight.defined() ? head.weight.shape().str() : "nothing");
  RETORT_CHECK(
      !head.bias.defined() || (head.bias.rank() == 1 && head.bias.dim(0) == head.weight.dim(0)),
      "[", kOp, "] expected a ", who, " bias (", head.weight.dim(0), "), got ",
      head.bias.defined() ? head.bias.shape().str() : "");
  for (const Tensor* t : {&head.weight, &head.bias})
    RETORT_CHECK(
        !t->defined() || (t->dtype() == features.dtype() && t->device() == features.device()), "[",
        kOp, "] expected a ", who, " head of ", name_of(features.dtype()), " on ",
        name_of(features.device()), ", got ", name_of(t->dtype()), " on ", name_of(t->device()));
}

void check(const LinearDistillationLossArgs& a) {
  check_layer("student", a.features, a.head);
  RETORT_CHECK(!a.rows.student_logits.defined(), "[", kOp,
               "] expected no student_logits: they are features times head");
  const std::int64_t rows = a.features.dim(0), classes = a.head.weight.dim(0);
  RETORT_CHECK(classes >= 1, "[", kOp, "] expected V >= 1, got ", a.head.weight.shape());
  RETORT_CHECK(a.logits_memory >= 0, "[", kOp, "] expected logits_memory >= 0, got ",
               a.logits_memory);
  const bool layer = a.teacher_features.defined() || a.teacher_head.defined();
  const Tensor& t = a.rows.teacher_logits;
  RETORT_CHECK(!layer || !t.defined(), "[", kOp,
               "] expected a teacher's logits, or its features and head, not both");
  if (layer) {
    check_layer("teacher", a.teacher_features, a.teacher_head);
    RETORT_CHECK(a.teacher_features.dim(0) == rows && a.teacher_head.weight.dim(0) == classes, "[",
                 kOp, "] expected a teacher of ", rows, " rows and ", classes, " classes, got ",
                 a.teacher_features.shape(), " and ", a.teacher_head.weight.shape());
    RETORT_CHECK(a.teacher_features.device() == a.features.device(), "[", kOp,
                 "] expected the teacher on ", name_of(a.features.device()));
  }
  RETORT_CHECK(
      !t.defined() || (t.shape() == Shape{rows, classes} && t.device() == a.features.device()), "[",
      kOp, "] expected teacher_logits (", rows, ", ", classes, ") on ",
      name_of(a.features.device()), ", got ", t.defined() ? t.shape().str() : "");
  check_rows(a.rows, rows, layer || t.defined(), a.features.device());
}

void multiply(const Tensor& c, const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
              std::int64_t k, double beta, const Tensor& bias = {}) {
  if (c.numel() == 0) return;
  kernels::GemmArgs args{c.raw(), a.raw(),       b.raw(),       c.dim(0),     c.dim(1),
                         k,       a.row_pitch(), b.row_pitch(), c.row_pitch()};
  args.transpose_a = transpose_a;
  args.transpose_b = transpose_b;
  args.dtype = c.dtype();
  args.beta = beta;
  args.bias = bias.defined() ? bias.raw() : nullptr;
  kernels::gemm(context_of(c.device()), args);
}

// logits (c, V) := features head^T
void multiply_out(const Tensor& logits, const Tensor& features, const nn::Head& head) {
  multiply(logits, features, false, head.weight, true, head.weight.dim(1), 0, head.bias);
}

nn::Head detached(const nn::Head& head) {
  if (!head.defined()) return {};
  return {head.weight.detach(), head.bias.defined() ? head.bias.detach().contiguous() : Tensor()};
}

/// Where a sweep puts what it finds; undefined: it is not wanted.
struct Found {
  Tensor totals, invalid_rows;  // (chunks)
  StatisticsBlocks statistics;
  Tensor dfeatures;
  GradientPlace dweight, dbias;
  bool gradients() const {
    return dfeatures.defined() || dweight.memory.defined() || dbias.memory.defined();
  }
};

/// The loss of these features, ready to be swept over as often as is wanted.
struct Sweep {
  LinearDistillationLossArgs a;  // detached
  Tensor normalizer;
  std::int64_t rows, classes, chunk;

  Tensor logits_memory(DType dtype) const {
    return Tensor::empty_pitched({chunk, classes}, classes >= 1024 ? 64 : 1, dtype,
                                 a.features.device());
  }

  void operator()(const Found& out, const Tensor& upstream = {}) const {
    const Device device = a.features.device();
    const DType dtype = a.features.dtype();
    const Context& context = context_of(device);
    const Tensor student_memory = logits_memory(dtype);
    const bool layer = a.teacher_head.defined();
    const Tensor teacher_memory = layer ? logits_memory(a.teacher_features.dtype()) : Tensor();
    const Tensor unread_total =
        out.totals.defined() ? Tensor() : Tensor::empty({}, total_dtype(), device);
    const bool adds_bias = out.dbias.memory.defined() && (chunk < rows || !out.dbias.is_empty);
    const Tensor bias_part = adds_bias ? Tensor::empty({classes}, dtype, device) : Tensor();
    kernels::DistillLossArgs all = kernel_arguments(a.rows, rows, classes, dtype);
    all.normalizer = normalizer.data<float>();
    for (std::int64_t begin = 0, i = 0; begin < rows; begin += chunk, ++i) {
      const std::int64_t end = std::min(rows, begin + chunk);
      const Tensor x = a.features.slice(begin, end);          // (c, m)
      const Tensor s = student_memory.slice(0, end - begin);  // (c, V)
      multiply_out(s, x, a.head);
      Tensor t;  // (c, V)
      if (layer) {
        t = teacher_memory.slice(0, end - begin);
        multiply_out(t, a.teacher_features.slice(begin, end), a.teacher_head);
        t = t.to(dtype);
      } else if (a.rows.teacher_logits.defined()) {
        t = a.rows.teacher_logits.slice(begin, end).to(dtype);
      }
      kernels::DistillLossArgs k = slice_of(all, begin, end);
      k.student = s.raw();
      k.student_pitch = s.row_pitch();
      k.teacher = t.defined() ? t.raw() : nullptr;
      k.teacher_pitch = t.defined() ? t.row_pitch() : 0;
      if (out.gradients()) {
        k.dstudent = s.raw();
        k.dstudent_pitch = s.row_pitch();
      }
      k.total = out.totals.defined() ? out.totals.slice(i, i + 1).raw() : unread_total.raw();
      if (out.invalid_rows.defined()) k.invalid_row = out.invalid_rows.data<std::int32_t>() + i;
      StatisticsBlocks statistics;
      if (out.statistics.statistics.defined()) {
        statistics =
            begin == 0 && end == rows ? out.statistics : StatisticsBlocks(end - begin, device);
        statistics.fill_in(k);
      }
      try {
        kernels::distill_loss(context, k);
      } catch (const Error& e) {
        if (chunk >= rows) throw;
        throw Error(e.code(), join("[", kOp, "] counting from row ", begin, ": ", e.what()));
      }
      if (statistics.statistics.defined() && end - begin < rows)
        out.statistics.copy_from(statistics, begin);
      if (!out.gradients()) continue;

      if (upstream.defined())
        kernels::scale_rows(context,
                            {s.raw(), upstream.raw(), s.dim(0), classes, s.row_pitch(), dtype});
      if (out.dfeatures.defined())
        multiply(out.dfeatures.slice(begin, end), s, false, a.head.weight, false, classes, 0);
      if (out.dweight.memory.defined())
        multiply(out.dweight.memory, s, true, x, false, end - begin,
                 i == 0 && out.dweight.is_empty ? 0 : 1);
      if (out.dbias.memory.defined()) {
        const bool first = i == 0 && out.dbias.is_empty;
        const Tensor to = first ? out.dbias.memory : bias_part;
        kernels::sum(context, {kernels::Sum::kColumns, to.raw(), s.raw(), s.dim(0), classes,
                               s.row_pitch(), 1, dtype});
        if (!first) kernels::axpy(context, {out.dbias.memory.raw(), to.raw(), 1, classes, dtype});
      }
    }
    if (rows > 0) return;
    for (const GradientPlace* place : {&out.dweight, &out.dbias})
      if (place->memory.defined() && place->is_empty) place->memory.fill(0);
  }

  DType total_dtype() const {
    return a.features.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  }
};

Tensor count_rows(const DistillationLossArgs& a, std::int64_t rows, Device device) {
  const Tensor count = Tensor::empty({}, DType::kF32, device);
  kernels::CountRowsArgs args;
  args.targets = a.targets.defined() && rows > 0 ? a.targets.data<std::int32_t>() : nullptr;
  args.mask = a.mask.defined() && rows > 0 ? a.mask.data<std::uint8_t>() : nullptr;
  args.ignore_index = a.ignore_index;
  args.rows = rows;
  args.count = count.data<float>();
  kernels::count_rows(context_of(device), args);
  return count;
}

Tensor detached(const Tensor& t) { return t.defined() ? t.detach() : t; }

// x := x * factor, which is read on the device; nothing is touched where it is 1.
void scale_in_place(const Tensor& x, const Tensor& factor) {
  if (!x.defined() || x.numel() == 0) return;
  kernels::scale_rows(context_of(x.device()),
                      {x.raw(), factor.raw(), 1, x.numel(), x.numel(), x.dtype()});
}

}  // namespace

std::int64_t default_logits_memory(Device device) {
  return std::int64_t{1} << (device == Device::kCpu ? 26 : 29);
}

std::int64_t chunk_rows_of(std::int64_t rows, std::int64_t row_bytes, std::int64_t memory) {
  const std::int64_t most =
                         std::max<std::int64_t>(1, memory / std::max<std::int64_t>(1, row_bytes)),
                     chunks = std::max<std::int64_t>(1, (rows + most - 1) / most),
                     each = (rows + chunks - 1) / chunks, even = (each + 7) / 8 * 8;
  return std::max<std::int64_t>(1, even <= most ? std::min(even, rows) : each);
}

LinearDistillationLossResult linear_distillation_loss(const LinearDistillationLossArgs& given) {
  check(given);
  const bool want_features = needs_grad(given.features),
             want_weight = needs_grad(given.head.weight), want_bias = needs_grad(given.head.bias);
  const bool recorded = want_features || want_weight || want_bias;
  const Device device = given.features.device();
  const DType dtype = given.features.dtype();

  Sweep sweep{given, given.rows.normalizer, given.features.dim(0), given.head.weight.dim(0), 0};
  LinearDistillationLossArgs& a = sweep.a;
  a.features = given.features.detach();
  a.head = detached(given.head);
  a.teacher_features = detached(given.teacher_features);
  a.teacher_head = detached(given.teacher_head);
  a.rows.teacher_logits = detached(given.rows.teacher_logits);
  const std::int64_t rows = sweep.rows, classes = sweep.classes;
  if (!sweep.normalizer.defined()) sweep.normalizer = count_rows(a.rows, rows, device);
  std::int64_t row_bytes = classes * static_cast<std::int64_t>(size_of(dtype));
  if (a.teacher_head.defined())
    row_bytes += classes * static_cast<std::int64_t>(size_of(a.teacher_features.dtype()));
  sweep.chunk = chunk_rows_of(
      rows, row_bytes, a.logits_memory > 0 ? a.logits_memory : default_logits_memory(device));
  const std::int64_t chunks = (rows + sweep.chunk - 1) / sweep.chunk;

  Found found;
  found.totals = Tensor::empty({chunks}, sweep.total_dtype(), device);
  found.invalid_rows = Tensor::empty({chunks}, DType::kI32, device);
  if (a.rows.statistics) found.statistics = StatisticsBlocks(rows, device);
  if (!a.recompute) {
    if (want_features) found.dfeatures = Tensor::empty(a.features.shape(), dtype, device);
    if (want_weight) found.dweight = {Tensor::empty(a.head.weight.shape(), dtype, device), true};
    if (want_bias) found.dbias = {Tensor::empty({classes}, dtype, device), true};
  }
  sweep(found);

  LinearDistillationLossResult r;
  r.chunk_rows = sweep.chunk;
  r.invalid_row = found.invalid_rows;
  if (a.rows.statistics) found.statistics.name(r);
  r.total = Tensor::empty({}, sweep.total_dtype(), device);
  kernels::sum(context_of(device),
               {kernels::Sum::kAll, r.total.raw(), chunks > 0 ? found.totals.raw() : nullptr, 1,
                chunks, chunks, 1, sweep.total_dtype()});
  if (!recorded) return r;
  std::vector<Tensor> inputs{given.features, given.head.weight, given.head.bias};
  if (!a.recompute) {
    // Saved: the gradients themselves. They are ours alone and backward runs once.
    std::vector<Tensor> gradients{found.dfeatures, found.dweight.memory, found.dbias.memory};
    r.total = record(kOp, r.total, std::move(inputs), [gradients](const Tensor& dy) {
      for (const Tensor& gradient : gradients) scale_in_place(gradient, dy);
      return gradients;
    });
    return r;
  }
  // Saved: what came in.
  r.total = record(
      kOp, r.total, std::move(inputs),
      [sweep, want_features, want_weight, want_bias](const Tensor& dy) {
        const Tensor& x = sweep.a.features;
        Found out;
        if (want_features) out.dfeatures = Tensor::empty(x.shape(), x.dtype(), x.device());
        if (want_weight)
          out.dweight = gradient_place(1, sweep.a.head.weight.shape(), x.dtype(), x.device());
        if (want_bias) out.dbias = gradient_place(2, {sweep.classes}, x.dtype(), x.device());
        sweep(out, dy);
        return std::vector<Tensor>{out.dfeatures, out.dweight.memory, out.dbias.memory};
      });
  return r;
}

DistillationLossResult linear_distillation_loss_composed(const LinearDistillationLossArgs& a) {
  check(a);
  DistillationLossArgs rows = a.rows;
  rows.student_logits = linear(a.features, a.head.weight, a.head.bias);
  if (a.teacher_head.defined()) {
    const NoGrad no_grad;
    rows.teacher_logits = linear(a.teacher_features, a.teacher_head.weight, a.teacher_head.bias);
  }
  return distillation_loss_composed(rows);
}

}  // namespace retort::distill
