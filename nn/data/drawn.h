// Samples that stand for a whole: drawn across it, because files are often sorted by class.
#pragma once
#include <cstdint>
#include <vector>

namespace retort::nn {

/// `count` of 0 .. size - 1 without replacement, ascending; all where there are not more. A
/// function of its arguments alone. size > 0.
std::vector<std::int64_t> drawn_samples(std::int64_t size, std::int64_t count, std::uint64_t seed,
                                        const char* purpose);

}  // namespace retort::nn
