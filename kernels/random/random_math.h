// From random words to numbers, shared by CPU and CUDA.
#pragma once
#include <cmath>
#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/philox.h"
#include "kernels/random/random.h"

namespace retort::kernels {

// Box and Muller's functions by fused operations on float alone: every device and every compiler
// gives the same bits, which its logf, cosf and sinf do not.

/// ln(u), u positive and normal. On (0, 1] within 0.92 ulp (all 2^24 values that a block can draw).
RETORT_HD float fused_log(float u) {
  // u = m 2^e, m in [sqrt(1/2), sqrt(2)); then ln(1 + f) = f + f^2 P(f), P interpolated at
  // Chebyshev's nodes.
  const std::uint32_t bits = bits_from_float(u);
  const std::int32_t e = static_cast<std::int32_t>(bits - 0x3f3504f3u) >> 23;
  const float f = float_from_bits(bits - (static_cast<std::uint32_t>(e) << 23)) - 1.0f;
  float p = 0.0676902384f;
  p = std::fma(p, f, -0.115572877f);
  p = std::fma(p, f, 0.118121363f);
  p = std::fma(p, f, -0.124208145f);
  p = std::fma(p, f, 0.142323181f);
  p = std::fma(p, f, -0.166675374f);
  p = std::fma(p, f, 0.200014472f);
  p = std::fma(p, f, -0.250000119f);
  p = std::fma(p, f, 0.333333224f);
  p = std::fma(p, f, -0.5f);
  return std::fma(static_cast<float>(e), 0.693147182f, std::fma(f * f, p, f));
}

/// Cosine and sine of the angle 2 pi (turn >> 8) / 2^24, within 0.72 ulp of 1. The quadrant is
/// taken off exactly, in integers.
RETORT_HD void fused_cos_sin(std::uint32_t turn, float& cosine, float& sine) {
  const std::int32_t t = static_cast<std::int32_t>(turn >> 8), quadrant = (t + (1 << 21)) >> 22;
  // in quarter turns, [-1/2, 1/2), exact
  const float x = static_cast<float>(t - (quadrant << 22)) * 2.384185791015625e-7f, z = x * x;
  float s = 0.000158206312f;
  s = std::fma(s, z, -0.00468126638f);
  s = std::fma(s, z, 0.0796925798f);
  s = std::fma(s, z, -0.645964086f);
  s = std::fma(s, z, 1.57079637f) * x;
  float c = 0.000903628068f;
  c = std::fma(c, z, -0.0208600704f);
  c = std::fma(c, z, 0.253669202f);
  c = std::fma(c, z, -1.23370051f);
  c = std::fma(c, z, 1.0f);
  const bool swapped = (quadrant & 1) != 0;
  cosine = swapped ? s : c;
  sine = swapped ? c : s;
  if (((quadrant + 1) & 2) != 0) cosine = -cosine;
  if ((quadrant & 2) != 0) sine = -sine;
}

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
      const float radius = std::sqrt(-2.0f * fused_log(u));
      float cosine, sine;
      fused_cos_sin(r.v[i + 1], cosine, sine);
      out[i] = std::fma(b, radius * cosine, a);
      out[i + 1] = std::fma(b, radius * sine, a);
    }
  }
}

/// -1 or +1 from bit i of a block of 128.
RETORT_HD float random_sign(const Philox4& r, int i) {
  return (r.v[i >> 5] >> (i & 31) & 1u) != 0 ? 1.0f : -1.0f;
}

}  // namespace retort::kernels
