// Two-dimensional convolution as a differentiable op.
#pragma once
#include "engine/ops/channel_statistics.h"
#include "engine/tensor/tensor.h"

namespace retort {

struct Conv2dOptions {
  int stride = 1;
  int padding = 0;  // zeros on all four sides
};

/// y[n,p,q,k] = sum_{r,s,c} x[n, p*stride - padding + r, q*stride - padding + s, c] *
/// weight[k,r,s,c]
///
/// Shapes    x (N,H,W,C), weight (K,R,S,C), result (N,Ho,Wo,K) with
///           Ho = (H + 2 * padding - R) / stride + 1 rounded down, likewise Wo.
/// Numerics  f64, f32 or bf16; the weights of a bf16 x may be f32: they are then read rounded to
///           bf16, from their copy where they keep one (Note [bf16 copies]). Sums in f32 (f64 for
///           f64). The same bytes with any number of threads.
/// Errors    Error if the shapes, dtypes or devices do not fit.
/// statistics: where to put those of the result, for the batch_norm that takes it; null: not
/// wanted.
Tensor conv2d(const Tensor& x, const Tensor& weight, const Conv2dOptions& options,
              ChannelStatistics* statistics = nullptr);

/// For inference: [relu](conv2d(x, weight) + bias [+ residual]) in one pass over the result, where
/// bias and weight hold a batch norm folded into them. Records nothing.
///
/// Shapes    as conv2d; bias (K), f64 for f64, else f32; residual as the result.
/// Errors    Error if the shapes, dtypes or devices do not fit, or if a gradient is wanted.
Tensor conv2d_inference(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const Conv2dOptions& options, bool relu = false,
                        const Tensor& residual = {});

}  // namespace retort
