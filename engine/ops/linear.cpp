#include "engine/ops/linear.h"

#include <algorithm>

#include "engine/autograd/autograd.h"
#include "engine/ops/elementwise.h"
#include "engine/runtime/device.h"
#include "kernels/bias/bias.h"
#include "kernels/gemm/gemm.h"
#include "kernels/reduce/reduce.h"

namespace retort {
namespace {

// Every leading dimension counts as rows: rows of any rank lie row_pitch apart.
std::int64_t pitch_of(const Tensor& t) { return std::max(t.row_pitch(), t.dim(-1)); }

void multiply(const Tensor& y, const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b,
              std::int64_t k, const void* bias = nullptr, bool relu = false) {
  kernels::GemmArgs args{y.raw(), a.raw(),     b.raw(),     y.rows(), y.dim(-1),
                         k,       pitch_of(a), pitch_of(b), y.dim(-1)};
  args.transpose_a = transpose_a;
  args.transpose_b = transpose_b;
  args.dtype = y.dtype();
  args.bias = bias;
  args.relu = relu;
  kernels::gemm(context_of(y.device()), args);
}

// What backward reads: x for dweight, weight for dx, y for the mask of a relu.
struct Saved {
  Tensor x, weight, y;
  Shape x_shape;
  bool want_x, want_weight, want_bias;

  std::vector<Tensor> operator()(const Tensor& dy_given) const {
    std::vector<Tensor> gradients(3);
    const Context& context = context_of(dy_given.device());
    const std::int64_t out = weight.dim(0), rows = dy_given.rows();
    if (want_bias) gradients[2] = gradient_memory(2, {out}, dy_given.dtype(), dy_given.device());
    void* const dbias = want_bias ? gradients[2].raw() : nullptr;
    Tensor dy = dy_given;  // the second handle
    if (y.defined()) {     // mask and sum in one pass, in place where nobody else holds the memory
      const bool alone = dy_given.is_contiguous() && dy_given.storage().use_count() == 2;
      dy = alone ? dy_given : Tensor::empty(dy_given.shape(), dy_given.dtype(), dy_given.device());
      const Tensor from = dy_given.contiguous();
      kernels::bias_backward(context,
                             {dy.raw(), dbias, from.raw(), y.raw(), rows, out, dy.dtype()});
    } else if (want_bias) {
      kernels::sum(context, {kernels::Sum::kColumns, dbias, dy.raw(), rows, out, pitch_of(dy), 1,
                             dy.dtype()});
    }
    if (want_x) {
      gradients[0] = Tensor::empty(x_shape, dy.dtype(), dy.device());
      multiply(gradients[0], dy, weight, false, false, out);
    }
    if (want_weight) {
      gradients[1] = gradient_memory(1, weight.shape(), dy.dtype(), dy.device());
      multiply(gradients[1], dy, x, true, false, rows);
    }
    return gradients;
  }
};

Tensor apply(const char* name, const Tensor& x, const Tensor& weight, const Tensor& bias,
             bool relu) {
  RETORT_CHECK(x.rank() >= 1 && weight.rank() == 2 && x.dim(-1) == weight.dim(1), "[", name,
               "] expected x (..., in) and weight (out, in), got ", x.shape(), " and ",
               weight.shape());
  RETORT_CHECK(!bias.defined() || (bias.rank() == 1 && bias.dim(0) == weight.dim(0)), "[", name,
               "] expected a bias (", weight.dim(0), "), got ", bias.shape());
  for (const Tensor* t : {&weight, &bias})
    RETORT_CHECK(!t->defined() || (t->dtype() == x.dtype() && t->device() == x.device()), "[", name,
                 "] expected ", name_of(x.dtype()), " on ", name_of(x.device()), ", got ",
                 name_of(t->dtype()), " on ", name_of(t->device()));
  const std::int64_t in = weight.dim(1), out = weight.dim(0);
  Shape shape(std::span(x.shape().begin(), x.shape().end() - 1));
  shape.push_back(out);
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  const Tensor bias_row = bias.defined() ? bias.contiguous() : Tensor{};
  if (y.numel() > 0)  // with in = 0, y is the bias
    multiply(y, x, weight, false, true, in, bias.defined() ? bias_row.raw() : nullptr, relu);

  const bool want_x = needs_grad(x), want_weight = needs_grad(weight), want_bias = needs_grad(bias);
  if (!want_x && !want_weight && !want_bias) return y;
  Saved saved{want_weight ? x.detach() : Tensor{},
              weight.detach(),
              relu ? y : Tensor{},
              x.shape(),
              want_x,
              want_weight,
              want_bias};
  return record(name, std::move(y), {x, weight, bias}, std::move(saved));
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return apply("linear", x, weight, bias, false);
}
Tensor linear_relu(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return apply("linear_relu", x, weight, bias, true);
}
Tensor linear_relu_composed(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return relu(linear(x, weight, bias));
}

}  // namespace retort
