// Rows of a slice, as a process that holds no others would have them.
//
// Note [Rows of a slice]
//   A kernel may take another path, and add in another order, where an array does not begin at a
//   multiple of its vectors' length; a library may choose by the address as well. Rows in the
//   middle of a batch begin anywhere, those of a rank begin where memory does. So that a slice
//   gives the same bytes in both, what does not begin like fresh memory is copied there.
#pragma once
#include "nn/data/dataset.h"

namespace retort::distill {

/// The tensor, or a copy of it that begins like fresh memory. Undefined stays undefined.
Tensor own_rows(const Tensor& t);
nn::Inputs own_rows(nn::Inputs inputs);
/// Readings that share memory still do.
nn::Batch own_rows(nn::Batch batch);

}  // namespace retort::distill
