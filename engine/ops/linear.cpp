#include "engine/ops/linear.h"

#include <algorithm>

#include "engine/autograd/autograd.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/pitch.h"
#include "engine/runtime/device.h"
#include "kernels/bias/bias.h"
#include "kernels/gemm/gemm.h"
#include "kernels/reduce/reduce.h"

namespace retort {
namespace {

thread_local bool rows_alone = false;

struct Product {  // c := f(op(a) op(b) + beta c + bias)
  Tensor c, a, b;
  bool transpose_a = false, transpose_b = false;
  std::int64_t k = 0;
  double beta = 0;
  const void* bias = nullptr;
  Activation activation = Activation::kNone;
  void* pre_activation = nullptr;
  bool row_alone = false;
};

void multiply(const Product& p) {
  const Tensor& c = p.c;
  kernels::GemmArgs args{c.raw(), p.a.raw(),     p.b.raw(),     c.rows(), c.dim(-1),
                         p.k,     pitch_of(p.a), pitch_of(p.b), c.dim(-1)};
  args.transpose_a = p.transpose_a;
  args.transpose_b = p.transpose_b;
  args.dtype = c.dtype();
  args.beta = p.beta;
  args.bias = p.bias;
  args.activation = p.activation;
  args.pre_activation = p.pre_activation;
  args.row_alone = p.row_alone;
  kernels::gemm(context_of(c.device()), args);
}

// What backward reads: x for dweight, weight for dx, y or z for the activation's derivative.
struct LinearSaved {
  Tensor x, weight, activated;
  Activation activation;
  Shape x_shape;
  bool want_x, want_weight, want_bias;

  std::vector<Tensor> operator()(const Tensor& dy_given) const {
    std::vector<Tensor> gradients(3);
    const Context& context = context_of(dy_given.device());
    const std::int64_t out = weight.dim(0), rows = dy_given.rows();
    if (want_bias) gradients[2] = gradient_memory(2, {out}, dy_given.dtype(), dy_given.device());
    void* const dbias = want_bias ? gradients[2].raw() : nullptr;
    Tensor dz = dy_given;  // the second handle
    if (activated
            .defined()) {  // mask and sum in one pass, in place if nobody else holds the memory
      const bool alone = dy_given.is_contiguous() && dy_given.storage().use_count() == 2;
      dz = alone ? dy_given : Tensor::empty(dy_given.shape(), dy_given.dtype(), dy_given.device());
      const Tensor from = dy_given.contiguous();
      kernels::bias_backward(context, {dz.raw(), dbias, from.raw(), activated.raw(), rows, out,
                                       activation, dz.dtype()});
    } else if (want_bias) {
      kernels::sum(context, {kernels::Sum::kColumns, dbias, dz.raw(), rows, out, pitch_of(dz), 1,
                             dz.dtype()});
    }
    if (want_x) {
      gradients[0] = Tensor::empty(x_shape, dz.dtype(), dz.device());
      multiply({.c = gradients[0], .a = dz, .b = weight, .k = out});
    }
    if (want_weight) {
      const GradientPlace dweight = gradient_place(1, weight.shape(), dz.dtype(), dz.device());
      multiply({.c = dweight.memory,
                .a = dz,
                .b = x,
                .transpose_a = true,
                .k = rows,
                .beta = dweight.is_empty ? 0.0 : 1.0});
      gradients[1] = dweight.memory;
    }
    return gradients;
  }
};

constexpr const char* op_name(Activation f) {
  switch (f) {
    case Activation::kRelu: return "linear_relu";
    case Activation::kGelu: return "linear_gelu";
    case Activation::kGeluTanh: return "linear_gelu_tanh";
    case Activation::kTanh: return "linear_tanh";
    default: return "linear";
  }
}

}  // namespace

RowsAlone::RowsAlone() : before_(rows_alone) { rows_alone = true; }
RowsAlone::~RowsAlone() { rows_alone = before_; }

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, Activation f) {
  const char* const name = op_name(f);
  RETORT_CHECK(x.rank() >= 1 && weight.rank() == 2 && x.dim(-1) == weight.dim(1), "[", name,
               "] expected x (..., in) and weight (out, in), got ", x.shape(), " and ",
               weight.shape());
  RETORT_CHECK(!bias.defined() || (bias.rank() == 1 && bias.dim(0) == weight.dim(0)), "[", name,
               "] expected a bias (", weight.dim(0), "), got ", bias.shape());
  for (const Tensor* t : {&weight, &bias})
    RETORT_CHECK(!t->defined() || (t->dtype() == x.dtype() && t->device() == x.device()), "[", name,
                 "] expected ", name_of(x.dtype()), " on ", name_of(x.device()), ", got ",
                 name_of(t->dtype()), " on ", name_of(t->device()));
  const bool want_x = needs_grad(x), want_weight = needs_grad(weight), want_bias = needs_grad(bias);
  const bool recorded = want_x || want_weight || want_bias;
  const std::int64_t in = weight.dim(1), out = weight.dim(0);
  Shape shape(std::span(x.shape().begin(), x.shape().end() - 1));
  shape.push_back(out);
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  const Tensor z = recorded && !backward_reads_result(f)
                       ? Tensor::empty(shape, x.dtype(), x.device())
                       : Tensor{};
  const Tensor bias_row = bias.defined() ? bias.contiguous() : Tensor{};
  if (y.numel() > 0)  // with in = 0, z is the bias
    multiply({.c = y,
              .a = x,
              .b = weight,
              .transpose_b = true,
              .k = in,
              .bias = bias.defined() ? bias_row.raw() : nullptr,
              .activation = f,
              .pre_activation = z.defined() ? z.raw() : nullptr,
              .row_alone = rows_alone});
  if (!recorded) return y;
  LinearSaved saved{want_weight ? x.detach() : Tensor{},
                    weight.detach(),
                    f == Activation::kNone ? Tensor{}
                    : z.defined()          ? z
                                           : y,
                    f,
                    x.shape(),
                    want_x,
                    want_weight,
                    want_bias};
  return record(name, std::move(y), {x, weight, bias}, std::move(saved));
}

Tensor linear_relu(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return linear(x, weight, bias, Activation::kRelu);
}

Tensor linear_composed(const Tensor& x, const Tensor& weight, const Tensor& bias, Activation f) {
  const Tensor z = linear(x, weight, bias);
  switch (f) {
    case Activation::kRelu: return relu(z);
    case Activation::kGelu: return gelu(z);
    case Activation::kGeluTanh: return gelu_tanh(z);
    case Activation::kTanh: return tanh(z);
    default: return z;
  }
}
}  // namespace retort
