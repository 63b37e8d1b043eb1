// Counter-based shuffles: a pure function of (seed, epoch, purpose), the same on every machine.
#pragma once
#include <cstdint>
#include <vector>

namespace retort::curriculum {

/// A uniform permutation of 0 .. n-1 (Fisher-Yates from the back, one Philox word per swap).
/// `purpose` is path_hash of what it is for. n < 2^32.
std::vector<std::int64_t> permutation(std::int64_t n, std::uint64_t seed, std::uint32_t epoch,
                                      std::uint32_t purpose);

/// k distinct numbers of 0 .. n-1, uniform over ordered selections; O(k) memory and time.
std::vector<std::int64_t> draw_without_replacement(std::int64_t n, std::int64_t k,
                                                   std::uint64_t seed, std::uint64_t step,
                                                   std::uint32_t purpose);

}  // namespace retort::curriculum
