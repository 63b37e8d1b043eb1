// Dropout keyed by sample: a sample's mask does not depend on the batch it is in.
#pragma once
#include "engine/ops/random.h"
#include "engine/tensor/tensor.h"

namespace retort {

/// y = x / (1 - p) with probability 1 - p, else 0, for each element by itself.
///
///   dx = dy / (1 - p) where y was kept, else 0: the mask is drawn again, none is kept
///
/// The mask is a function of (noise.seed, step, sample, position, path) and the element's place in
/// its row: the same on CPU and CUDA, in any batch, order and split of the samples. path is
/// path_hash("layer1.dropout") or the like.
///
/// Shapes    x (rows..., elements...): the leading dimensions whose product is the length of
///           noise.sample are rows (undefined: the first dimension). y is contiguous.
/// Numerics  f64, f32, bf16; kernels/dropout/dropout.h.
/// Capture   step, sample and position are read on the device. They must hold in backward what they
///           held in forward: the step advances after it.
/// Errors    Error if p is outside [0, 1), or noise does not fit x. With p = 0, or training false
///           (evaluation), the result is x itself.
Tensor dropout(const Tensor& x, double p, const Noise& noise, std::uint32_t path,
               bool training = true);

/// What dropout multiplies x with: 1 / (1 - p) or 0.
Tensor dropout_mask(const Tensor& like, double p, const Noise& noise, std::uint32_t path);

/// Its definition in ordinary ops.
Tensor dropout_composed(const Tensor& x, double p, const Noise& noise, std::uint32_t path);

}  // namespace retort
