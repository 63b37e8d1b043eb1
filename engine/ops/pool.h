// Differentiable pooling of NHWC images; formulas in kernels/pool/pool.h.
#pragma once
#include "engine/tensor/tensor.h"

namespace retort {

/// (N, H, W, C) -> (N, P, Q, C). Saves one byte per output: which pixel won.
/// Errors    Error if the kernel does not fit or padding exceeds half the kernel.
Tensor max_pool2d(const Tensor& x, int kernel, int stride, int padding);

/// (N, H, W, C) -> (N, P, Q, C); padding counts as zeros. Saves nothing.
Tensor average_pool2d(const Tensor& x, int kernel, int stride, int padding = 0);

/// (N, H, W, C) -> (N, C): the mean over each image. Saves nothing.
Tensor global_average_pool(const Tensor& x);

}  // namespace retort
