// A bias over the last dimension.
#pragma once
#include "engine/tensor/tensor.h"

namespace retort {

/// y[..., c] = x[..., c] + bias[c].
///
/// Shapes    x (..., C), bias (C); both of one dtype (f64, f32, bf16) and device.
/// Numerics  the bias gradient is a column sum in an order fixed by the sizes.
Tensor add_bias(const Tensor& x, const Tensor& bias);

/// relu(x + bias) in one pass; backward masks and sums in one pass too.
Tensor add_bias_relu(const Tensor& x, const Tensor& bias);

}  // namespace retort
