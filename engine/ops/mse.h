// Mean squared error.
#pragma once
#include "engine/tensor/tensor.h"

namespace retort {

/// mean((x - target)^2) over all elements: a scalar, differentiable with respect to both.
///
/// Shapes    x and target of one shape, not empty; one dtype (f64, f32, bf16) and device.
Tensor mse(const Tensor& x, const Tensor& target);

/// The same in plain ops: its definition, and its oracle in the tests.
Tensor mse_composed(const Tensor& x, const Tensor& target);

}  // namespace retort
