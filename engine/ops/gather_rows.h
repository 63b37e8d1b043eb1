// Rows of a table by index: an embedding, or the rows of a batch that a loss wants.
#pragma once
#include "engine/tensor/tensor.h"

namespace retort {

/// y[..., :] = table[indices[...], :]. gather_rows(parameter, ids) is an embedding.
///
///   dtable[i] += sum over n with indices[n] = i of dy[n], in fixed order (scatter_rows)
///
/// Backward adds those rows to the table's gradient where it lies (gradient_to_add_to): no (R, C)
/// temporary, and a decoder tied to the table may add its own before or after.
///
/// Shapes    table (R, C), rows may be pitched; indices (...), i32, on the same device -> (..., C).
/// Numerics  any dtype, bit for bit; differentiable in f64, f32 and bf16.
/// Errors    Error if ranks, dtypes or devices do not fit. An index outside [0, R): on the CPU
///           Error naming row and index; on CUDA that row is NaN, and invalid_row, an i32 scalar on
///           the device if given, is 1 + the first such row, else 0.
Tensor gather_rows(const Tensor& table, const Tensor& indices, const Tensor& invalid_row = {});

/// Its definition in ordinary ops: one-hot rows times the table.
Tensor gather_rows_composed(const Tensor& table, const Tensor& indices);

}  // namespace retort
