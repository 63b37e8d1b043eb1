// softmax and log_softmax over the last dimension.
#pragma once
#include "engine/tensor/tensor.h"

namespace retort {

/// exp(x - max) / sum exp(x - max) over the last dimension. f64, f32, bf16; rank >= 1; rows may be
/// pitched; the result is contiguous. Differentiable. A row of -inf alone gives zeros.
Tensor softmax(const Tensor& x);

/// The logarithm of softmax(x), without ever forming a probability. A row of -inf alone gives -inf.
Tensor log_softmax(const Tensor& x);

}  // namespace retort
