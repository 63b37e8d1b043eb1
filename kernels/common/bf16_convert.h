// Arrays of bf16 to f32 and back on the CPU, vectorised for the machine at hand.
#pragma once
#include <cstdint>

#include "kernels/common/bf16.h"

namespace retort {

/// to[i] = from[i], exactly. In the calling thread.
void widen(float* to, const bf16* from, std::int64_t n);
/// to[i] = from[i] rounded to nearest even. In the calling thread.
void narrow(bf16* to, const float* from, std::int64_t n);

}  // namespace retort
