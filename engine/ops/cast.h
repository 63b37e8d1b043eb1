// Change of dtype on the tape.
#pragma once
#include "engine/tensor/tensor.h"

namespace retort {

/// x in another floating dtype, rounded to nearest even; x itself if it has that dtype. The
/// gradient comes back in x's.
Tensor cast(const Tensor& x, DType dtype);

}  // namespace retort
