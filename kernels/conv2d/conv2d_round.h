// Weights rounded to bf16 on the device: for a library that takes one dtype only.
#pragma once
#include "kernels/common/context.h"
#include "kernels/conv2d/conv2d.h"

namespace retort::kernels {

/// to[i] = bf16(weight[i]) for the weight_elements() of the shape. Defined in conv2d_cuda.cu.
void conv2d_round_weights(const Context& context, const Conv2dShape& shape, bf16* to,
                          const float* weight);

}  // namespace retort::kernels
