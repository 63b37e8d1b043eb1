#include "engine/ops/elementwise.h"

#include "engine/autograd/autograd.h"
#include "engine/ops/reduce.h"
#include "engine/runtime/device.h"
#include "kernels/elementwise/elementwise.h"

namespace retort {
namespace {

using kernels::Binary;
using kernels::Unary;

Tensor like(const Tensor& t) { return Tensor::empty(t.shape(), t.dtype(), t.device()); }

Tensor apply(Unary op, const Tensor& given, double a = 1, double b = 0) {
  const Tensor x = given.contiguous();
  Tensor y = like(x);
  kernels::unary(context_of(x.device()), {op, y.raw(), x.raw(), x.numel(), a, b, x.dtype()});
  if (!needs_grad(given)) return y;
  // Saved: the result or the input, whichever the derivative reads; affine needs neither.
  Tensor saved;
  if (op != Unary::kAffine) saved = backward_reads_result(op) ? y : x.detach();
  return record(name_of(op), y, {given}, [op, a, saved](const Tensor& dy_given) {
    const Tensor dy = dy_given.contiguous(), dx = like(dy);
    kernels::unary_backward(context_of(dy.device()),
                            {op, dx.raw(), dy.raw(), saved.defined() ? saved.raw() : nullptr,
                             dy.numel(), a, dy.dtype()});
    return std::vector<Tensor>{dx};
  });
}

// y = x1 op x2 without recording.
Tensor plain(Binary op, const Tensor& x1, const Tensor& x2) {
  Tensor y = like(x1);
  kernels::binary(context_of(x1.device()), {op, y.raw(), x1.raw(), x2.raw(), x1.numel(),
                                            x2.numel() == 1 && x1.numel() != 1, x1.dtype()});
  return y;
}

// The gradient of a one-element operand is the sum over all it was applied to.
Tensor fitted(const Tensor& gradient, const Shape& operand) {
  if (gradient.shape() == operand) return gradient;
  return (gradient.numel() == 1 ? gradient : sum(gradient)).view(operand);
}

Tensor apply(Binary op, const Tensor& a_given, const Tensor& b_given) {
  RETORT_CHECK(a_given.shape() == b_given.shape() || b_given.numel() == 1, "[", name_of(op),
               "] expected two tensors of one shape or one element in the second, got ",
               a_given.shape(), " and ", b_given.shape());
  RETORT_CHECK(a_given.dtype() == b_given.dtype(), "[", name_of(op), "] expected ",
               name_of(a_given.dtype()), " twice, got ", name_of(b_given.dtype()));
  RETORT_CHECK(a_given.device() == b_given.device(), "[", name_of(op), "] expected two tensors on ",
               name_of(a_given.device()), ", got one on ", name_of(b_given.device()));
  const Tensor a = a_given.contiguous(), b = b_given.contiguous();
  Tensor y = plain(op, a, b);
  const bool need_a = needs_grad(a_given), need_b = needs_grad(b_given);
  if (!need_a && !need_b) return y;
  // Saved: nothing for sums; for products the other operand, for quotients the divisor and y.
  const bool product = op == Binary::kMultiply, quotient = op == Binary::kDivide;
  const Tensor saved_a = product && need_b ? a.detach() : Tensor();
  const Tensor saved_b = (product && need_a) || quotient ? b.detach() : Tensor();
  const Tensor saved_y = quotient && need_b ? y : Tensor();
  const Shape shape_b = b.shape();
  return record(name_of(op), y, {a_given, b_given}, [=](const Tensor& dy_given) {
    const Tensor dy = dy_given.contiguous();
    Tensor da, db;
    switch (op) {
      case Binary::kAdd:
        if (need_a) da = dy;
        if (need_b) db = fitted(dy, shape_b);
        break;
      case Binary::kSubtract:
        if (need_a) da = dy;
        if (need_b) db = fitted(negate(dy), shape_b);
        break;
      case Binary::kMultiply:
        if (need_a) da = plain(Binary::kMultiply, dy, saved_b);
        if (need_b) db = fitted(plain(Binary::kMultiply, dy, saved_a), shape_b);
        break;
      case Binary::kDivide:  // db = -dy * y / b
        if (need_a) da = plain(Binary::kDivide, dy, saved_b);
        if (need_b)
          db =
              fitted(negate(plain(Binary::kDivide, plain(Binary::kMultiply, dy, saved_y), saved_b)),
                     shape_b);
        break;
    }
    return std::vector<Tensor>{da, db};
  });
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) { return apply(Binary::kAdd, a, b); }
Tensor subtract(const Tensor& a, const Tensor& b) { return apply(Binary::kSubtract, a, b); }
Tensor multiply(const Tensor& a, const Tensor& b) { return apply(Binary::kMultiply, a, b); }
Tensor divide(const Tensor& a, const Tensor& b) { return apply(Binary::kDivide, a, b); }

Tensor scale(const Tensor& x, double factor) { return apply(Unary::kAffine, x, factor, 0); }
Tensor add_scalar(const Tensor& x, double value) { return apply(Unary::kAffine, x, 1, value); }
Tensor affine(const Tensor& x, double factor, double value) {
  return apply(Unary::kAffine, x, factor, value);
}
Tensor negate(const Tensor& x) { return apply(Unary::kAffine, x, -1, 0); }

Tensor relu(const Tensor& x) { return apply(Unary::kRelu, x); }
Tensor exp(const Tensor& x) { return apply(Unary::kExp, x); }
Tensor log(const Tensor& x) { return apply(Unary::kLog, x); }
Tensor square(const Tensor& x) { return apply(Unary::kSquare, x); }
Tensor sqrt(const Tensor& x) { return apply(Unary::kSqrt, x); }
Tensor tanh(const Tensor& x) { return apply(Unary::kTanh, x); }
Tensor abs(const Tensor& x) { return apply(Unary::kAbs, x); }
Tensor sigmoid(const Tensor& x) { return apply(Unary::kSigmoid, x); }
Tensor gelu(const Tensor& x) { return apply(Unary::kGelu, x); }
Tensor gelu_tanh(const Tensor& x) { return apply(Unary::kGeluTanh, x); }

}  // namespace retort
