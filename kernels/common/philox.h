// Counter-based random numbers: a number is a pure function of (seed, what it is for), so CPU and
// GPU, any thread count and any resumed run draw the same ones.
//
// Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"
// (Philox4x32-10).
#pragma once
#include <cstdint>

#include "kernels/common/hd.h"

namespace retort {

struct Philox4 {
  std::uint32_t v[4];
};

/// Philox4x32 with 10 rounds. Counter words, in this project: {element block, sample, epoch, hash
/// of the op's path}; the key is the 64-bit seed.
RETORT_HD Philox4 philox(std::uint64_t key, std::uint32_t c0, std::uint32_t c1, std::uint32_t c2,
                         std::uint32_t c3) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0;
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c2;
    const std::uint32_t n0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    const std::uint32_t n2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<std::uint32_t>(p1);
    c3 = static_cast<std::uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return Philox4{{c0, c1, c2, c3}};
}

/// Uniform in [0, 1): 24 random bits, exact in float.
RETORT_HD float uniform01(std::uint32_t bits) {
  return static_cast<float>(bits >> 8) * 5.9604644775390625e-8f;
}

/// Uniform integer in [0, n): multiply-shift, bias below n / 2^32.
RETORT_HD std::uint32_t uniform_below(std::uint32_t bits, std::uint32_t n) {
  return static_cast<std::uint32_t>((std::uint64_t{bits} * n) >> 32);
}

/// FNV-1a of an op's path such as "layer1.0.dropout" or "augment": the fourth counter word.
RETORT_HD constexpr std::uint32_t path_hash(const char* path) {
  std::uint32_t h = 2166136261u;
  for (; *path != '\0'; ++path) h = (h ^ static_cast<std::uint8_t>(*path)) * 16777619u;
  return h;
}

}  // namespace retort
