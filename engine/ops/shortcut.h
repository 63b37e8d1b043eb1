// The parameter-free shortcut of CIFAR ResNets; formula in kernels/shortcut/shortcut.h.
#pragma once
#include "engine/tensor/tensor.h"

namespace retort {

/// Option A: x[:, ::stride, ::stride, :] with zero channels around it, (out_channels - C) / 2
/// before and the rest after. (N, H, W, C) -> (N, ceil(H / s), ceil(W / s), out_channels).
Tensor shortcut_a(const Tensor& x, int stride, std::int64_t out_channels);

}  // namespace retort
