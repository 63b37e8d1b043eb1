// 16-bit storage types. Arithmetic is done in float; these only hold values.
// An own type because cuda_bf16.h needs the toolkit, which the CPU build does not have.
#pragma once
#include <cstdint>

#include "kernels/common/hd.h"

namespace retort {

struct alignas(2) bf16 {  // 1 sign, 8 exponent, 7 mantissa bits
  std::uint16_t bits;
};
struct alignas(2) f16 {  // IEEE binary16
  std::uint16_t bits;
};

RETORT_HD float float_from_bits(std::uint32_t u) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(u);
#else
  float f;
  __builtin_memcpy(&f, &u, sizeof f);
  return f;
#endif
}

RETORT_HD std::uint32_t bits_from_float(float f) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(f);
#else
  std::uint32_t u;
  __builtin_memcpy(&u, &f, sizeof u);
  return u;
#endif
}

RETORT_HD float to_float(bf16 h) {
  return float_from_bits(static_cast<std::uint32_t>(h.bits) << 16);
}

/// Round to nearest even; every NaN becomes 0x7fff, as cvt.rn.bf16.f32 does.
RETORT_HD bf16 to_bf16(float f) {
#if defined(__CUDA_ARCH__)
  std::uint16_t r;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(f));
  return bf16{r};
#else
  const std::uint32_t u = bits_from_float(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return bf16{0x7fff};
  return bf16{static_cast<std::uint16_t>((u + 0x7fffu + (u >> 16 & 1u)) >> 16)};
#endif
}

RETORT_HD float to_float(f16 h) {
#if defined(__CUDA_ARCH__)
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h.bits));
  return f;
#else
  const std::uint32_t sign = static_cast<std::uint32_t>(h.bits & 0x8000u) << 16;
  const std::uint32_t exponent = h.bits >> 10 & 0x1fu;
  std::uint32_t mantissa = h.bits & 0x3ffu;
  if (exponent == 0x1f) return float_from_bits(sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0) return float_from_bits(sign | (exponent + 112u) << 23 | mantissa << 13);
  // Subnormal: mantissa * 2^-24, exact in float.
  const float magnitude = static_cast<float>(mantissa) * 5.9604644775390625e-8f;
  return sign ? -magnitude : magnitude;
#endif
}

RETORT_HD f16 to_f16(float f) {
#if defined(__CUDA_ARCH__)
  std::uint16_t r;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(f));
  return f16{r};
#else
  const std::uint32_t u = bits_from_float(f);
  const std::uint16_t sign = static_cast<std::uint16_t>(u >> 16 & 0x8000u);
  const std::uint32_t magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return f16{0x7fff};
  if (magnitude >= 0x477ff000u) return f16{static_cast<std::uint16_t>(sign | 0x7c00u)};  // overflow
  if (magnitude < 0x38800000u) {  // subnormal or zero: round |f| * 2^24 to nearest even
    const float scaled = float_from_bits(magnitude) * 16777216.0f;
    std::uint32_t whole = static_cast<std::uint32_t>(scaled);
    const float rest = scaled - static_cast<float>(whole);
    if (rest > 0.5f || (rest == 0.5f && (whole & 1u))) ++whole;
    return f16{static_cast<std::uint16_t>(sign | whole)};
  }
  const std::uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u;
  return f16{static_cast<std::uint16_t>(sign | rounded >> 13)};
#endif
}

// Identity overloads, so that generic code may say to_float(x) and from_float<T>(x).
RETORT_HD float to_float(float x) { return x; }
RETORT_HD double to_float(double x) { return x; }

namespace detail {
template <class T>
struct Narrow {  // double stays double
  template <class F>
  static RETORT_HD T from(F x) {
    return static_cast<T>(x);
  }
};
template <>
struct Narrow<bf16> {
  static RETORT_HD bf16 from(float x) { return to_bf16(x); }
};
template <>
struct Narrow<f16> {
  static RETORT_HD f16 from(float x) { return to_f16(x); }
};
}  // namespace detail

/// From the accumulation type (double for double, else float) to the storage type.
template <class T, class F>
RETORT_HD T from_float(F x) {
  return detail::Narrow<T>::from(x);
}

}  // namespace retort
