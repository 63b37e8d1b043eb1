// The affine map of a fully connected layer.
#pragma once
#include "engine/tensor/tensor.h"
#include "kernels/common/activation.h"

namespace retort {

using kernels::Activation;

/// y = f(z), z = x weight^T + bias, f the activation: the product's last step, not a pass of its
/// own.
///
///   dz = dy f'(z)   dx = dz weight   dweight = dz^T x   dbias[j] = sum of dz[:, j], in fixed order
///
/// dweight is added in place where another consumer of the weight, or another micro-batch, has left
/// its gradient (gradient_place): the last term of the sum, rounded with it.
///
/// Shapes    x (..., in), weight (out, in), bias (out) or undefined -> (..., out). Rows of x may be
///           padded (row pitch).
/// Numerics  f64, f32, bf16 (summed in f32); the bias is added before the one rounding. relu: the
///           same bytes as relu(linear(x, weight, bias)); the others agree with theirs to rounding.
/// Saved     x, weight and, for dz, y with relu and tanh. The GELUs need z: while gradients are
///           recorded the product writes it beside y, (..., out) elements more.
/// Errors    Error if sizes, dtypes or devices differ.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias,
              Activation f = Activation::kNone);
Tensor linear_relu(const Tensor& x, const Tensor& weight, const Tensor& bias);

/// While one lives, a row of linear()'s result in this thread is a function of its own row of x
/// alone, bit for bit, however many rows are multiplied together. A library has other paths for few
/// rows than for many; this gives some of their speed away. For forwards on the CPU in f32 and bf16.
class RowsAlone {
 public:
  RowsAlone();
  ~RowsAlone();
  RowsAlone(const RowsAlone&) = delete;
  RowsAlone& operator=(const RowsAlone&) = delete;

 private:
  bool before_;
};

/// The definition of linear in ordinary ops: the product, then the activation.
Tensor linear_composed(const Tensor& x, const Tensor& weight, const Tensor& bias, Activation f);

}  // namespace retort
