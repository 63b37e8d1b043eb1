// The rank of each row's target among its logits.
#pragma once
#include "engine/tensor/tensor.h"

namespace retort {

/// How many classes come before the target: those with a larger logit, and those of a lower index
/// with an equal one. 0: the prediction is right; < k: it is among the top k. Targets that are
/// ignore_index give -1. NaN is never right (kernels/row_rank/row_rank.h). No gradient.
///
/// Shapes    logits (..., V), rows may be pitched; targets (...), i32 -> (...), i32.
/// Numerics  f32, bf16; f64 on the CPU. Exact.
/// Errors    Error if shapes, dtypes or devices do not fit; on the CPU also for a target outside
///           [0, V), which on CUDA ranks V.
Tensor row_rank(const Tensor& logits, const Tensor& targets, std::int32_t ignore_index = -100);

}  // namespace retort
