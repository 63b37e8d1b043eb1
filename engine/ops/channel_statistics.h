// Statistics of a convolution's output on their way to the batch norm that follows it.
#pragma once
#include "engine/tensor/tensor.h"

namespace retort {

/// Mean and centred sum of squares per channel of chunks of rows of a tensor seen as (R, C): what
/// conv2d can make beside its result, and batch_norm can take in place of a pass over it.
///
/// Shapes    partial (ceil(R / rows), 2, C), f64 for f64, else f32.
struct ChannelStatistics {
  Tensor partial;
  std::int64_t rows = 0;  // of a chunk; the last may be shorter

  bool defined() const { return partial.defined(); }
};

}  // namespace retort
