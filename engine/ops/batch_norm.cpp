#include "engine/ops/batch_norm.h"

#include "engine/autograd/autograd.h"
#include "engine/runtime/device.h"
#include "kernels/batch_norm/batch_norm.h"

namespace retort {
namespace {

void check_parameter(const char* name, const Tensor& t, const Tensor& x) {
  const DType dtype = x.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  RETORT_CHECK(t.defined() && t.shape() == Shape{x.dim(-1)} && t.dtype() == dtype &&
                   t.device() == x.device(),
               "[batch_norm] expected ", name, " (", x.dim(-1), ") of ", name_of(dtype), " on ",
               name_of(x.device()), ", got ",
               t.defined()
                   ? join(t.shape(), " of ", name_of(t.dtype()), " on ", name_of(t.device()))
                   : std::string("an undefined tensor"));
}

}  // namespace

Tensor batch_norm(const Tensor& x_in, const Tensor& weight, const Tensor& bias,
                  const Tensor& running_mean, const Tensor& running_var, const BatchNormOptions& o,
                  const Tensor& residual_in, const ChannelStatistics& statistics) {
  RETORT_CHECK(x_in.defined() && x_in.rank() >= 1,
               "[batch_norm] expected x (..., C) with at least one dimension");
  check_parameter("weight", weight, x_in);
  check_parameter("bias", bias, x_in);
  RETORT_CHECK(running_mean.defined() == running_var.defined(),
               "[batch_norm] expected both running_mean and running_var, or neither");
  if (running_mean.defined() || !o.training) {
    check_parameter("running_mean", running_mean, x_in);
    check_parameter("running_var", running_var, x_in);
  }
  if (residual_in.defined())
    RETORT_CHECK(residual_in.shape() == x_in.shape() && residual_in.dtype() == x_in.dtype() &&
                     residual_in.device() == x_in.device(),
                 "[batch_norm] expected a residual ", x_in.shape(), " of ", name_of(x_in.dtype()),
                 ", got ", residual_in.shape(), " of ", name_of(residual_in.dtype()));
  const Tensor x = x_in.detach().contiguous();
  const Tensor residual = residual_in.defined() ? residual_in.detach().contiguous() : Tensor{};
  const Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  const Tensor mean = Tensor::empty({x.dim(-1)}, weight.dtype(), x.device());
  const Tensor rstd = Tensor::empty({x.dim(-1)}, weight.dtype(), x.device());
  const std::int64_t rows = x.rows(), channels = x.dim(-1);
  const bool given = o.training && statistics.defined();
  if (given) {
    const Tensor& p = statistics.partial;
    const std::int64_t chunk = statistics.rows > 0 ? statistics.rows : 1;
    const Shape want{(rows + chunk - 1) / chunk, 2, channels};
    RETORT_CHECK(p.shape() == want && p.dtype() == weight.dtype() && p.device() == x.device() &&
                     p.is_contiguous() && statistics.rows >= 1,
                 "[batch_norm] expected statistics ", want, " of ", name_of(weight.dtype()),
                 " for chunks of ", statistics.rows, " rows, got ", p.shape(), " of ",
                 name_of(p.dtype()));
  }
  kernels::batch_norm(
      context_of(x.device()),
      {x.raw(), residual.defined() ? residual.raw() : nullptr, y.raw(), weight.raw(), bias.raw(),
       running_mean.defined() ? running_mean.raw() : nullptr,
       running_var.defined() ? running_var.raw() : nullptr, mean.raw(), rstd.raw(), rows, channels,
       o.momentum, o.epsilon, o.training, o.relu, x.dtype(),
       given ? statistics.partial.raw() : nullptr, statistics.rows});
  // Saved: x, mean, rstd, weight, bias; y only where a residual has a part in relu's mask.
  return record(
      "batch_norm", y, {x_in, weight, bias, residual_in},
      [x, weight = weight.detach(), mean, rstd, bias = bias.detach(),
       y = o.relu && residual.defined() ? y : Tensor{}, training = o.training, relu = o.relu,
       want_dx = needs_grad(x_in), want_dresidual = needs_grad(residual_in)](const Tensor& dy_in) {
        const Tensor dy = dy_in.contiguous();
        const Tensor dx = want_dx ? Tensor::empty(x.shape(), x.dtype(), x.device()) : Tensor{};
        // Without relu the residual's gradient is dy itself.
        const bool store = want_dresidual && relu;
        Tensor dresidual = store ? Tensor::empty(x.shape(), x.dtype(), x.device()) : Tensor{};
        const Tensor dweight = gradient_memory(1, weight.shape(), weight.dtype(), x.device());
        const Tensor dbias = gradient_memory(2, weight.shape(), weight.dtype(), x.device());
        kernels::batch_norm_backward(
            context_of(x.device()),
            {dy.raw(), x.raw(), y.defined() ? y.raw() : nullptr, weight.raw(), bias.raw(),
             mean.raw(), rstd.raw(), dx.defined() ? dx.raw() : nullptr,
             dresidual.defined() ? dresidual.raw() : nullptr, dweight.raw(), dbias.raw(), x.rows(),
             x.dim(-1), training, relu, x.dtype()});
        if (want_dresidual && !relu) dresidual = dy;
        return std::vector<Tensor>{dx, dweight, dbias, dresidual};
      });
}

}  // namespace retort
