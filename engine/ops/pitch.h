// Private to engine/ops.
#pragma once
#include <algorithm>
#include <cstdint>

#include "engine/tensor/tensor.h"

namespace retort {

/// Elements between rows, every leading dimension counted as rows: what products call lda.
inline std::int64_t pitch_of(const Tensor& t) { return std::max(t.row_pitch(), t.dim(-1)); }

}  // namespace retort
