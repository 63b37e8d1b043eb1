// Product of two matrices.
#pragma once
#include "engine/tensor/tensor.h"

namespace retort {

/// y = op(a) op(b), where op transposes if asked to.
///
/// Shapes    op(a) (M, K), op(b) (K, N) -> (M, N). Rows may be padded (row pitch).
/// Numerics  f64, f32, bf16 (summed in f32); see kernels/gemm/gemm.h.
/// Errors    Error if a rank is not 2 or K, dtypes or devices differ.
Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a = false, bool transpose_b = false);

}  // namespace retort
