// Which attention probabilities dropout keeps: a pure function of what they are for, the same on
// every device.
#pragma once
#include <cstdint>

#include "kernels/common/dropout_math.h"

namespace retort::kernels {

/// Keys that a query has counters for: with dropout no sequence may be longer.
inline constexpr std::int64_t kAttentionDropoutKeys = 32768;

/// Every head draws from a path of its own.
RETORT_HD std::uint32_t attention_path(std::uint32_t path, int head) {
  return path + static_cast<std::uint32_t>(head) * 0x9E3779B9u;
}

/// The words of keys 4 block .. 4 block + 3 for a query, both counted from the sequence's first
/// row: Philox block = query * 8192 + key / 4 of dropout_words. key.path is attention_path's.
RETORT_HD Philox4 attention_words(const DropoutKey& key, std::uint32_t sample, std::uint32_t query,
                                  std::uint32_t block) {
  constexpr auto kBlocks = static_cast<std::uint32_t>(kAttentionDropoutKeys / kDropoutBlock);
  return dropout_words(key, sample, query * kBlocks + block);
}

}  // namespace retort::kernels
