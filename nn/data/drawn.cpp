#include "nn/data/drawn.h"

#include <algorithm>
#include <numeric>

#include "kernels/common/philox.h"
#include "nn/data/permutation.h"

namespace retort::nn {

std::vector<std::int64_t> drawn_samples(std::int64_t size, std::int64_t count, std::uint64_t seed,
                                        const char* purpose) {
  std::vector<std::int64_t> samples(static_cast<std::size_t>(std::min(count, size)));
  std::iota(samples.begin(), samples.end(), 0);
  if (count >= size) return samples;
  for (std::int64_t& sample : samples)
    sample = static_cast<std::int64_t>(permute(static_cast<std::uint64_t>(sample),
                                               static_cast<std::uint64_t>(size), seed, 0,
                                               path_hash(purpose)));
  std::sort(samples.begin(), samples.end());
  return samples;
}

}  // namespace retort::nn
