// Sums and means over neighbouring rows: from token rows to samples.
#pragma once
#include "engine/tensor/tensor.h"

namespace retort {

/// y[s] = sum of x[n] over starts[s] <= n < starts[s + 1]; the mean divides by their number. An
/// empty segment gives 0.
///
///   dx[n] = dy[s of n] (the mean's divided likewise); 0 for rows of no segment
///
/// Shapes    x (N) or (N, C), rows may be pitched; starts (S + 1), i32, ascending, on the same
///           device -> (S) or (S, C). Rows from starts[S] on are not read.
/// Numerics  f64, f32, bf16 (summed in float), in fixed order, rounded once.
/// Errors    Error if shapes, dtypes or devices do not fit; on the CPU also if starts descends or
///           leaves [0, N].
Tensor segment_sum(const Tensor& x, const Tensor& starts);
Tensor segment_mean(const Tensor& x, const Tensor& starts);

/// starts (segments + 1) of ascending segment_of_row (N), both i32: starts[s] is the first row of
/// segment s or behind.
Tensor segment_starts(const Tensor& segment_of_row, std::int64_t segments);

/// The definition in ordinary ops: slices of rows, added up.
Tensor segment_sum_composed(const Tensor& x, const Tensor& starts, bool mean = false);

}  // namespace retort
