// Numbers as the ISA has them.
#pragma once
#include <cmath>
#include <limits>
#include <type_traits>

#include "tools/ptx/instructions.h"

namespace retort::ptx {
inline u16 to_bf16(float x) {
  const u32 b = std::bit_cast<u32>(x);
  if (x != x) return 0x7fff;
  return static_cast<u16>((b + 0x7fff + (b >> 16 & 1)) >> 16);
}
inline float from_bf16(u16 h) { return std::bit_cast<float>(static_cast<u32>(h) << 16); }
inline u16 to_f16(float x) {
  if (x != x) return 0x7fff;
  const _Float16 h = static_cast<_Float16>(x);
  return std::bit_cast<u16>(h);
}
inline float from_f16(u16 h) { return static_cast<float>(std::bit_cast<_Float16>(h)); }

// min and max drop one NaN; -0 lies below +0.
template <class V>
V smaller(V a, V b) {
  if constexpr (std::is_floating_point_v<V>) {
    if (a != a) return b;
    if (b != b) return a;
    if (a == b) return std::signbit(a) ? a : b;
  }
  return a < b ? a : b;
}
template <class V>
V larger(V a, V b) {
  if constexpr (std::is_floating_point_v<V>) {
    if (a != a) return b;
    if (b != b) return a;
    if (a == b) return std::signbit(a) ? b : a;
  }
  return a > b ? a : b;
}
}  // namespace retort::ptx
