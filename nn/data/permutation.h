// A permutation of [0, n) that needs no array: any element by itself, from a key.
#pragma once
#include <cstdint>

#include "kernels/common/philox.h"

namespace retort::nn {

/// Where position i goes under the permutation named by (seed, epoch, stream). i < n.
///
/// Eight Feistel rounds on the smallest even number of bits that holds n (at least 8), with Philox
/// as the round function; values outside [0, n) are sent through again until they fall inside
/// (cycle walking), which keeps it a bijection.
/// Source    Black, Rogaway 2002, "Ciphers with arbitrary finite domains".
inline std::uint64_t permute(std::uint64_t i, std::uint64_t n, std::uint64_t seed,
                             std::uint32_t epoch, std::uint32_t stream) {
  int half = 4;
  while (half < 32 && (n - 1) >> (2 * half) != 0) ++half;
  const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
  do {
    std::uint64_t left = i >> half, right = i & mask;
    for (std::uint32_t round = 0; round < 8; ++round) {
      const Philox4 r = philox(seed, static_cast<std::uint32_t>(right), stream * 8 + round, epoch,
                               path_hash("shuffle"));
      const std::uint64_t next = left ^ (r.v[0] & mask);
      left = right;
      right = next;
    }
    i = left << half | right;
  } while (i >= n);
  return i;
}

}  // namespace retort::nn
