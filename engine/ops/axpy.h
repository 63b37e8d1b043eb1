// y += a * x: the plain accumulation that backward is made of. Not recorded on the tape.
#pragma once
#include "engine/tensor/tensor.h"

namespace retort {

/// y := y + a * x in place. Same shape, dtype (f64, f32, bf16) and device; rows of
/// both may be pitched (a column view of y: the columns beside it stay).
void add_into(const Tensor& y, const Tensor& x, double a = 1.0);

}  // namespace retort
