// Differentiable changes of shape and extent.
#pragma once
#include <vector>

#include "engine/tensor/tensor.h"

namespace retort {

/// The same elements in another shape. Shares memory when x is contiguous, else copies.
Tensor reshape(const Tensor& x, const Shape& shape);

/// One tensor from several, joined along the outermost dimension; the other dimensions, dtype and
/// device must agree. Copies.
Tensor concatenate(const std::vector<Tensor>& parts);

/// Rows [begin, end) of the outermost dimension. Shares memory with x.
///
/// Backward writes dy into those rows of dx, or adds it where another consumer of x has left its
/// gradient: slices that share an x share one dx.
Tensor slice_rows(const Tensor& x, std::int64_t begin, std::int64_t end);

/// Columns [begin, end) of the last dimension (rank >= 1). Shares memory with x: a view whose rows
/// keep x's pitch. Backward as slice_rows, in columns: a packed (T, 3H) split into three takes one
/// gradient (T, 3H).
Tensor slice_columns(const Tensor& x, std::int64_t begin, std::int64_t end);

}  // namespace retort
