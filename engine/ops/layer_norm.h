// Differentiable layer normalisation, fused with a residual add and dropout.
#pragma once
#include "engine/ops/random.h"
#include "engine/tensor/tensor.h"

namespace retort {

/// y[..., c] = (x - mean) / sqrt(var + epsilon) * weight[c] + bias[c], mean and biased variance over
/// the last dimension; formulas, with those of the gradients, in kernels/layer_norm/layer_norm.h.
///
/// Shapes    x (..., C), rows may be pitched -> (..., C); weight, bias (C), f64 for x f64, else f32.
/// Numerics  f64 (CPU alone), f32, bf16 (computed in f32). dweight and dbias: sums in fixed order.
/// Saved     x, and mean and rstd, two numbers a row.
/// Provider  on CUDA, rows of more than 8,192 elements run layer_norm_composed.
/// Errors    Error if shapes, dtypes or devices do not fit, or epsilon <= 0.
Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double epsilon = 1e-5);

/// Dropout of x before the sum: as dropout(x, p, noise, path), the same mask.
struct ResidualDropout {
  double p = 0;
  Noise noise = {};
  std::uint32_t path = 0;
};

/// layer_norm(dropout(x) + residual) in one pass. The sum is rounded to x's dtype before it is
/// normalised, whether it is kept or not: backward reads it.
///
/// Shapes    residual as x. Saved: the sum in x's dtype, mean, rstd; neither x nor residual.
Tensor layer_norm_residual(const Tensor& x, const Tensor& residual, const Tensor& weight,
                           const Tensor& bias, double epsilon = 1e-5,
                           const ResidualDropout& dropout = {});

/// The same where the sum is wanted too, as in models that normalise before each block: both are
/// on the tape, and what reads either adds to the gradients of x and residual.
struct NormAndSum {
  Tensor y, sum;
};
NormAndSum layer_norm_and_sum(const Tensor& x, const Tensor& residual, const Tensor& weight,
                              const Tensor& bias, double epsilon = 1e-5,
                              const ResidualDropout& dropout = {});

/// The definitions in ordinary ops; bf16 is computed in f32, sum and result rounded.
Tensor layer_norm_composed(const Tensor& x, const Tensor& weight, const Tensor& bias,
                           double epsilon = 1e-5);
Tensor layer_norm_residual_composed(const Tensor& x, const Tensor& residual, const Tensor& weight,
                                    const Tensor& bias, double epsilon = 1e-5,
                                    const ResidualDropout& dropout = {});

}  // namespace retort
