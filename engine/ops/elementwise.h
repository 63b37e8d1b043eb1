// Differentiable elementwise ops. Tensors are f64, f32 or bf16, on one device.
#pragma once
#include "engine/tensor/tensor.h"

namespace retort {

/// a + b, a - b, a * b, a / b, element by element.
///
/// Shapes    a and b of one shape, or b with a single element that applies to all of a.
/// Numerics  bf16 is computed in float and rounded once.
/// Errors    Error if shapes, dtypes or devices differ.
Tensor add(const Tensor& a, const Tensor& b);
Tensor subtract(const Tensor& a, const Tensor& b);
Tensor multiply(const Tensor& a, const Tensor& b);
Tensor divide(const Tensor& a, const Tensor& b);

Tensor scale(const Tensor& x, double factor);                 // factor * x
Tensor add_scalar(const Tensor& x, double value);             // x + value
Tensor affine(const Tensor& x, double factor, double value);  // factor * x + value
Tensor negate(const Tensor& x);

Tensor relu(const Tensor& x);       // max(x, 0); NaN stays NaN; derivative at 0 is 0
Tensor exp(const Tensor& x);        // e^x
Tensor log(const Tensor& x);        // natural logarithm
Tensor square(const Tensor& x);     // x^2
Tensor sqrt(const Tensor& x);       // derivative at 0 is infinite
Tensor tanh(const Tensor& x);       //
Tensor abs(const Tensor& x);        // derivative at 0 is 0
Tensor sigmoid(const Tensor& x);    // 1 / (1 + e^-x)
Tensor gelu(const Tensor& x);       // x * Phi(x), by erf (not the tanh approximation)
Tensor gelu_tanh(const Tensor& x);  // its tanh approximation: kernels/common/activation.h

}  // namespace retort
