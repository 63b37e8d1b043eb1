#include "engine/ops/layer_norm.h"

#include <vector>

#include "engine/autograd/autograd.h"
#include "engine/ops/bias.h"
#include "engine/ops/cast.h"
#include "engine/ops/dropout.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/matmul.h"
#include "engine/ops/view.h"
#include "engine/runtime/device.h"
#include "kernels/layer_norm/layer_norm.h"

namespace retort {
namespace {

std::string described(const Tensor& t) {
  return t.defined() ? join(t.shape(), " of ", name_of(t.dtype()), " on ", name_of(t.device()))
                     : std::string("an undefined tensor");
}

void check(const Tensor& x, const Tensor& residual, const Tensor& weight, const Tensor& bias,
           double epsilon, const ResidualDropout& d) {
  RETORT_CHECK(x.defined() && x.rank() >= 1 && x.dim(-1) >= 1,
               "[layer_norm] expected x (..., C), C >= 1, got ", described(x));
  RETORT_CHECK(epsilon > 0, "[layer_norm] expected epsilon > 0, got ", epsilon);
  const DType wanted = x.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  for (const Tensor* const t : {&weight, &bias})
    RETORT_CHECK(t->defined() && t->shape() == Shape{x.dim(-1)} && t->dtype() == wanted &&
                     t->device() == x.device() && t->is_contiguous(),
                 "[layer_norm] expected weight and bias (", x.dim(-1), ") of ", name_of(wanted),
                 " on ", name_of(x.device()), ", got ", described(*t));
  RETORT_CHECK(
      !residual.defined() || (residual.shape() == x.shape() && residual.dtype() == x.dtype() &&
                              residual.device() == x.device()),
      "[layer_norm] expected a residual like x, ", described(x), ", got ", described(residual));
  RETORT_CHECK(d.p >= 0 && d.p < 1, "[layer_norm] expected dropout in [0, 1), got ", d.p);
  if (d.p == 0) return;
  const auto fits = [&](const Tensor& t, std::int64_t n, bool wide) {
    return !t.defined() || ((wide ? t.dtype() == DType::kI64 || t.dtype() == DType::kI32
                                  : t.dtype() == DType::kI32) &&
                            t.numel() == n && t.device() == x.device() && t.is_contiguous());
  };
  RETORT_CHECK((!d.noise.step.defined() ||
                (d.noise.step.dtype() == DType::kI64 && d.noise.step.numel() == 1 &&
                 d.noise.step.device() == x.device())) &&
                   fits(d.noise.sample, x.rows(), true) && fits(d.noise.position, x.rows(), false),
               "[layer_norm] expected on ", name_of(x.device()), " a step of one i64, ", x.rows(),
               " samples of i64 or i32 and positions of i32");
}

kernels::DropoutArgs drop_of(const ResidualDropout& d, std::int64_t columns) {
  kernels::DropoutArgs drop{};
  drop.columns = columns;
  drop.p = d.p;
  drop.seed = d.noise.seed;
  drop.path = d.path;
  if (d.p == 0) return drop;
  if (d.noise.step.defined()) drop.step = d.noise.step.data<std::int64_t>();
  if (d.noise.sample.defined()) {
    drop.sample = d.noise.sample.raw();
    drop.sample_dtype = d.noise.sample.dtype();
  }
  if (d.noise.position.defined()) drop.position = d.noise.position.data<std::int32_t>();
  return drop;
}

bool is_fused(const Tensor& x) {
  return x.device() == Device::kCpu || x.dim(-1) <= kernels::kLayerNormMostChannels;
}

struct Forward {
  Tensor y, sum, mean, rstd;
};

// sum: where the sum is to be kept; mean and rstd with it or where `keep` asks for them.
Forward run(const Tensor& x, const Tensor& residual, const Tensor& weight, const Tensor& bias,
            double epsilon, const ResidualDropout& d, bool keep_sum, bool keep) {
  const auto like = [&] { return Tensor::empty(x.shape(), x.dtype(), x.device()); };
  Forward f{like(), keep_sum ? like() : Tensor{}, {}, {}};
  if (keep) {
    f.mean = Tensor::empty({x.rows()}, weight.dtype(), x.device());
    f.rstd = Tensor::empty({x.rows()}, weight.dtype(), x.device());
  }
  kernels::LayerNormArgs args{};
  args.y = f.y.raw();
  args.sum = keep_sum ? f.sum.raw() : nullptr;
  args.mean = keep ? f.mean.raw() : nullptr;
  args.rstd = keep ? f.rstd.raw() : nullptr;
  args.x = x.raw();
  args.residual = residual.defined() ? residual.raw() : nullptr;
  args.weight = weight.raw(), args.bias = bias.raw();
  args.rows = x.rows(), args.channels = x.dim(-1);
  args.x_pitch = x.row_pitch();
  args.residual_pitch = residual.defined() ? residual.row_pitch() : 0;
  args.epsilon = epsilon, args.dtype = x.dtype();
  args.drop = drop_of(d, x.dim(-1));
  kernels::layer_norm(context_of(x.device()), args);
  return f;
}

// What backward reads, and which gradients it writes.
struct LayerNormSaved {
  Tensor s, mean, rstd, weight;
  ResidualDropout dropout;
};
struct Wanted {
  Tensor ds, dx, dweight, dbias;
  bool add_to_ds = false;
};

void run_backward(const LayerNormSaved& saved, const Tensor& dy, const Wanted& w) {
  const auto raw = [](const Tensor& t) { return t.defined() ? t.raw() : nullptr; };
  kernels::LayerNormBackwardArgs args{};
  args.ds = raw(w.ds), args.dx = raw(w.dx);
  args.dweight = raw(w.dweight), args.dbias = raw(w.dbias);
  args.dy = dy.raw(), args.s = saved.s.raw();
  args.mean = saved.mean.raw(), args.rstd = saved.rstd.raw(), args.weight = saved.weight.raw();
  args.rows = saved.s.rows(), args.channels = saved.s.dim(-1);
  args.dy_pitch = dy.row_pitch(), args.s_pitch = saved.s.row_pitch();
  args.add_to_ds = w.add_to_ds, args.dtype = dy.dtype();
  args.drop = drop_of(saved.dropout, saved.s.dim(-1));
  kernels::layer_norm_backward(context_of(dy.device()), args);
}

// The gradients of weight and bias, inputs `first` and first + 1: both or neither.
void want_parameters(Wanted& w, const LayerNormSaved& saved, bool wanted, std::size_t first) {
  if (!wanted) return;
  const Tensor& t = saved.weight;
  w.dweight = gradient_memory(first, t.shape(), t.dtype(), t.device());
  w.dbias = gradient_memory(first + 1, t.shape(), t.dtype(), t.device());
}

// y of s, a tensor with a gradient of its own.
Tensor record_norm(const Tensor& y, const Tensor& s, const Tensor& weight, const Tensor& bias,
                   const LayerNormSaved& saved) {
  return record("layer_norm", y, {s, weight, bias},
                [saved, want_s = needs_grad(s),
                 want_parameters_too = needs_grad(weight) || needs_grad(bias)](const Tensor& dy) {
                  Wanted w;
                  if (want_s) {
                    const GradientPlace place =
                        gradient_place(0, saved.s.shape(), dy.dtype(), dy.device());
                    w.ds = place.memory, w.add_to_ds = !place.is_empty;
                  }
                  want_parameters(w, saved, want_parameters_too, 1);
                  run_backward(saved, dy, w);
                  return std::vector<Tensor>{w.ds, w.dweight, w.dbias};
                });
}

Tensor in_sums_dtype(const Tensor& x) {
  return x.dtype() == DType::kBF16 ? cast(x, DType::kF32) : x;
}

// dropout(x) + residual, rounded once.
Tensor sum_composed(const Tensor& x, const Tensor& residual, const ResidualDropout& d) {
  const Tensor wide = in_sums_dtype(x);
  return cast(add(d.p > 0 ? dropout(wide, d.p, d.noise, d.path) : wide, in_sums_dtype(residual)),
              x.dtype());
}

}  // namespace

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double epsilon) {
  check(x, {}, weight, bias, epsilon, {});
  if (!is_fused(x)) return layer_norm_composed(x, weight, bias, epsilon);
  const bool keep = needs_grad(x) || needs_grad(weight) || needs_grad(bias);
  const Forward f = run(x, {}, weight, bias, epsilon, {}, false, keep);
  if (!keep) return f.y;
  return record_norm(f.y, x, weight, bias, {x.detach(), f.mean, f.rstd, weight.detach(), {}});
}

Tensor layer_norm_residual(const Tensor& x, const Tensor& residual, const Tensor& weight,
                           const Tensor& bias, double epsilon, const ResidualDropout& dropout) {
  RETORT_CHECK(residual.defined(), "[layer_norm] expected a residual, got an undefined tensor");
  check(x, residual, weight, bias, epsilon, dropout);
  if (!is_fused(x))
    return layer_norm_residual_composed(x, residual, weight, bias, epsilon, dropout);
  const bool keep = needs_grad(x) || needs_grad(residual) || needs_grad(weight) || needs_grad(bias);
  const Forward f = run(x, residual, weight, bias, epsilon, dropout, keep, keep);
  if (!keep) return f.y;
  const LayerNormSaved saved{f.sum, f.mean, f.rstd, weight.detach(), dropout};
  return record("layer_norm_residual", f.y, {x, residual, weight, bias},
                [saved, want_x = needs_grad(x), want_residual = needs_grad(residual),
                 want_parameters_too = needs_grad(weight) || needs_grad(bias)](const Tensor& dy) {
                  const bool drops = saved.dropout.p > 0;
                  const auto like = [&] {
                    return Tensor::empty(saved.s.shape(), dy.dtype(), dy.device());
                  };
                  Wanted w;
                  if (want_residual || (want_x && !drops)) w.ds = like();
                  if (want_x && drops) w.dx = like();
                  want_parameters(w, saved, want_parameters_too, 2);
                  run_backward(saved, dy, w);
                  return std::vector<Tensor>{!want_x ? Tensor{}
                                             : drops ? w.dx
                                                     : w.ds,
                                             want_residual ? w.ds : Tensor{}, w.dweight, w.dbias};
                });
}

NormAndSum layer_norm_and_sum(const Tensor& x, const Tensor& residual, const Tensor& weight,
                              const Tensor& bias, double epsilon, const ResidualDropout& dropout) {
  RETORT_CHECK(residual.defined(), "[layer_norm] expected a residual, got an undefined tensor");
  check(x, residual, weight, bias, epsilon, dropout);
  if (!is_fused(x)) {
    const Tensor sum = sum_composed(x, residual, dropout);
    return {layer_norm_composed(sum, weight, bias, epsilon), sum};
  }
  const bool keep = needs_grad(x) || needs_grad(residual) || needs_grad(weight) || needs_grad(bias);
  const Forward f = run(x, residual, weight, bias, epsilon, dropout, true, keep);
  if (!keep) return {f.y, f.sum};
  Tensor sum = f.sum;
  if (needs_grad(x) || needs_grad(residual))
    sum = record("dropout_add", sum, {x, residual}, [dropout](const Tensor& ds) {
      // The mask is that of dropout(x): its gradient is dropout(ds).
      const NoGrad none;
      return std::vector<Tensor>{
          dropout.p > 0 ? retort::dropout(ds, dropout.p, dropout.noise, dropout.path) : ds, ds};
    });
  const LayerNormSaved saved{sum.detach(), f.mean, f.rstd, weight.detach(), {}};
  return {record_norm(f.y, sum, weight, bias, saved), sum};
}

// ---- the definitions ----------------------------------------------------------------------------

namespace {

// x (N, C), of weight's dtype.
Tensor normalised(const Tensor& x, const Tensor& weight, const Tensor& bias, double epsilon) {
  const std::int64_t n = x.dim(0), c = x.dim(1);
  const Tensor average = Tensor::full({c, c}, 1 / static_cast<double>(c), x.dtype(), x.device()),
               ones = Tensor::full({n, 1}, 1, x.dtype(), x.device());
  const Tensor centred = subtract(x, matmul(x, average));
  const Tensor var = matmul(square(centred), average);  // (N, C), equal in a row
  const Tensor xhat = divide(centred, sqrt(add_scalar(var, epsilon)));
  return add_bias(multiply(xhat, matmul(ones, reshape(weight, {1, c}))), bias);
}

}  // namespace

Tensor layer_norm_composed(const Tensor& x, const Tensor& weight, const Tensor& bias,
                           double epsilon) {
  check(x, {}, weight, bias, epsilon, {});
  if (x.numel() == 0) return x;
  const Tensor rows = reshape(in_sums_dtype(x), {x.rows(), x.dim(-1)});
  return cast(reshape(normalised(rows, weight, bias, epsilon), x.shape()), x.dtype());
}

Tensor layer_norm_residual_composed(const Tensor& x, const Tensor& residual, const Tensor& weight,
                                    const Tensor& bias, double epsilon, const ResidualDropout& d) {
  check(x, residual, weight, bias, epsilon, d);
  return layer_norm_composed(sum_composed(x, residual, d), weight, bias, epsilon);
}

}  // namespace retort
