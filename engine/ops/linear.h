// The affine map of a fully connected layer.
#pragma once
#include "engine/tensor/tensor.h"

namespace retort {

/// y = x weight^T + bias.
///
///   dx = dy weight    dweight = dy^T x    dbias[j] = sum over rows of dy[:, j], in fixed order
///
/// Shapes    x (..., in), weight (out, in), bias (out) or undefined -> (..., out). Rows of x may be
///           padded (row pitch).
/// Numerics  f64, f32, bf16 (summed in f32); the bias is added before the one rounding.
/// Errors    Error if sizes, dtypes or devices differ.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias);

/// max(x weight^T + bias, 0) without a pass of its own: the product's last step. The same bytes as
/// relu(linear(x, weight, bias)); backward masks dy where y is not > 0, then as above.
Tensor linear_relu(const Tensor& x, const Tensor& weight, const Tensor& bias);

/// The same as a product and a pass of its own: its definition.
Tensor linear_relu_composed(const Tensor& x, const Tensor& weight, const Tensor& bias);

}  // namespace retort
