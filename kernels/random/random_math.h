// From random words to numbers, shared by CPU and CUDA.
#pragma once
#include <cmath>
#include <cstdint>

#include "kernels/common/philox.h"
#include "kernels/random/random.h"

namespace retort::kernels {

/// The four values of a block (kSigns has its own loop: 128 values a block).
template <Random kKind>
RETORT_HD void random_block(const Philox4& r, float a, float b, float (&out)[4]) {
  if constexpr (kKind == Random::kUniform) {
    // fma by name: the same rounding whether or not a compiler contracts.
    for (int i = 0; i < 4; ++i) out[i] = std::fma(b - a, uniform01(r.v[i]), a);
  } else if constexpr (kKind == Random::kBernoulli) {
    for (int i = 0; i < 4; ++i) out[i] = uniform01(r.v[i]) < a ? 1.0f : 0.0f;
  } else {
    for (int i = 0; i < 4; i += 2) {
      const float u = uniform01(r.v[i]) + 5.9604644775390625e-8f;  // (0, 1]
      const float radius = std::sqrt(-2.0f * std::log(u));
      const float angle = 6.283185307179586f * uniform01(r.v[i + 1]);
      out[i] = std::fma(b, radius * std::cos(angle), a);
      out[i + 1] = std::fma(b, radius * std::sin(angle), a);
    }
  }
}

/// -1 or +1 from bit i of a block of 128.
RETORT_HD float random_sign(const Philox4& r, int i) {
  return (r.v[i >> 5] >> (i & 31) & 1u) != 0 ? 1.0f : -1.0f;
}

}  // namespace retort::kernels
