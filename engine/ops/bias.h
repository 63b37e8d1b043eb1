// A bias over the last dimension.
#pragma once
#include "engine/tensor/tensor.h"
#include "kernels/common/activation.h"

namespace retort {

using kernels::Activation;

/// y[..., c] = f(x[..., c] + bias[c]) in one pass, f the activation.
///
/// Shapes    x (..., C), bias (C); both of one dtype (f64, f32, bf16) and device.
/// Numerics  the bias gradient is a column sum in an order fixed by the sizes.
/// Saved     nothing with kNone; y with relu and tanh; x with the GELUs, whose derivative is of
///           z = x + bias: backward adds the bias again. Backward is one pass, sum included.
Tensor add_bias(const Tensor& x, const Tensor& bias, Activation f = Activation::kNone);
Tensor add_bias_relu(const Tensor& x, const Tensor& bias);

}  // namespace retort
