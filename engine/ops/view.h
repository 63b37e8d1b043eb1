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
Tensor slice_rows(const Tensor& x, std::int64_t begin, std::int64_t end);

}  // namespace retort
