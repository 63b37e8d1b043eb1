// Differentiable sums. Their order is fixed by the sizes, so results repeat bit for bit.
#pragma once
#include "engine/tensor/tensor.h"

namespace retort {

/// Sum and mean over all elements: a scalar of x's dtype. The sum of nothing is 0; a mean of
/// nothing throws.
Tensor sum(const Tensor& x);
Tensor mean(const Tensor& x);

/// Sum over the last dimension: (..., C) -> (...).
Tensor sum_rows(const Tensor& x);

/// Sum over all dimensions but the last: (..., C) -> (C).
Tensor column_sum(const Tensor& x);

}  // namespace retort
