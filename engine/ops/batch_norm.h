// Differentiable batch normalisation, fused with a residual add and ReLU.
#pragma once
#include "engine/ops/channel_statistics.h"
#include "engine/tensor/tensor.h"

namespace retort {

struct BatchNormOptions {
  bool training = true;
  double momentum = 0.1;  // weight of the new value in the running statistics
  double epsilon = 1e-5;
  bool relu = false;
};

/// y = [relu](batch_norm(x) [+ residual]); formulas in kernels/batch_norm/batch_norm.h.
///
/// Shapes    x, residual, y (..., C), channels last, any rank >= 1; the others (C).
///           weight, bias and the running statistics are f64 for x f64, else f32.
/// Cost      saves x, mean, rstd, and y with relu and a residual; residual itself is not kept.
/// Errors    Error on shapes, dtypes or devices that do not fit, or an empty batch in training.
/// In training the running statistics are updated in place, once per call; both may be undefined.
/// statistics: those of x, if the convolution that made it has them; used in training only.
Tensor batch_norm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                  const Tensor& running_mean, const Tensor& running_var,
                  const BatchNormOptions& options, const Tensor& residual = {},
                  const ChannelStatistics& statistics = {});

}  // namespace retort
