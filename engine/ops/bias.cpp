#include "engine/ops/bias.h"

#include "engine/autograd/autograd.h"
#include "engine/runtime/device.h"
#include "kernels/bias/bias.h"

namespace retort {
namespace {

constexpr const char* op_name(Activation f) {
  switch (f) {
    case Activation::kRelu: return "add_bias_relu";
    case Activation::kGelu: return "add_bias_gelu";
    case Activation::kGeluTanh: return "add_bias_gelu_tanh";
    case Activation::kTanh: return "add_bias_tanh";
    default: return "add_bias";
  }
}

}  // namespace

Tensor add_bias(const Tensor& x_given, const Tensor& bias_given, Activation f) {
  const char* const name = op_name(f);
  RETORT_CHECK(
      x_given.rank() >= 1 && bias_given.rank() == 1 && bias_given.dim(0) == x_given.dim(-1), "[",
      name, "] expected x (..., C) and bias (C), got ", x_given.shape(), " and ",
      bias_given.shape());
  RETORT_CHECK(x_given.dtype() == bias_given.dtype() && x_given.device() == bias_given.device(),
               "[", name, "] expected one dtype and device, got ", name_of(x_given.dtype()), " on ",
               name_of(x_given.device()), " and ", name_of(bias_given.dtype()), " on ",
               name_of(bias_given.device()));
  const Tensor x = x_given.contiguous(), bias = bias_given.contiguous();
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  const std::int64_t rows = x.rows(), columns = x.dim(-1);
  kernels::bias(context_of(x.device()),
                {y.raw(), x.raw(), bias.raw(), rows, columns, f, x.dtype()});
  const bool need_bias = needs_grad(bias_given);
  if (!need_bias && !needs_grad(x_given)) return y;
  const bool activated = f != Activation::kNone, reads_result = backward_reads_result(f);
  return record(name, y, {x_given, bias_given},
                [rows, columns, need_bias, f, activated,
                 saved = !activated     ? Tensor()
                         : reads_result ? y
                                        : x.detach(),
                 shift = reads_result ? Tensor() : bias.detach()](const Tensor& dy_given) {
                  const Tensor dy = dy_given.contiguous();
                  Tensor dx = dy, dbias;
                  if (activated) dx = Tensor::empty(dy.shape(), dy.dtype(), dy.device());
                  if (need_bias) dbias = gradient_memory(1, {columns}, dy.dtype(), dy.device());
                  if (activated || need_bias)
                    kernels::bias_backward(context_of(dy.device()),
                                           {dx.raw(), need_bias ? dbias.raw() : nullptr, dy.raw(),
                                            activated ? saved.raw() : nullptr, rows, columns, f,
                                            dy.dtype(), shift.defined() ? shift.raw() : nullptr});
                  return std::vector<Tensor>{dx, dbias};
                });
}

Tensor add_bias_relu(const Tensor& x, const Tensor& bias) {
  return add_bias(x, bias, Activation::kRelu);
}

}  // namespace retort
