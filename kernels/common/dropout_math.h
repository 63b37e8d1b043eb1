// Which elements dropout keeps: a pure function of what they are for, for its own kernels and for
// those that fuse it.
#pragma once
#include <cstdint>

#include "kernels/common/philox.h"

namespace retort::kernels {

/// Elements that one Philox block decides on: four neighbours of a row.
inline constexpr int kDropoutBlock = 4;

/// What the masks of one op in one step share.
struct DropoutKey {
  std::uint64_t seed;
  std::uint32_t step, path;
  std::uint32_t threshold;  // a word below it drops its element: dropout_threshold(p)
};

/// p as a share of 2^32, rounded; 0 <= p < 1.
constexpr std::uint32_t dropout_threshold(double p) {
  const double share = p * 4294967296.0 + 0.5;
  return share >= 4294967295.0 ? 0xffffffffu : static_cast<std::uint32_t>(share);
}

/// The words of elements 4 block .. 4 block + 3 of a row; kept where word >= key.threshold. A row
/// of `columns` elements has dropout_blocks(columns) of them, and `position` counts the rows of a
/// sample: block = position * dropout_blocks(columns) + (column / 4).
RETORT_HD Philox4 dropout_words(const DropoutKey& key, std::uint32_t sample, std::uint32_t block) {
  return philox(key.seed, block, sample, key.step, key.path);
}
RETORT_HD constexpr std::int64_t dropout_blocks(std::int64_t columns) {
  return (columns + kDropoutBlock - 1) / kDropoutBlock;
}

/// x / (1 - p) or 0. scale is 1 / (1 - p).
template <class A>
RETORT_HD A dropout_value(A x, std::uint32_t word, std::uint32_t threshold, A scale) {
  return word >= threshold ? x * scale : A(0);
}

}  // namespace retort::kernels
