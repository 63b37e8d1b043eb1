// Which of many cases became slower: what compare decides, from the medians of blocks.
//
// Samples of one block share the speed that the machine had then, so a block counts once, by its
// median. A rank test cannot do with five blocks a side: its smallest p-value, 1 / 252, is far from
// what some hundred tests at once need. So the logarithms of the medians go through Student's t,
// each case's variance drawn towards that of all cases: how far blocks lie apart is a trait of the
// machine, of which all cases together know more than two times five medians. No case counts as
// steadier than half of them are.
//
// Source    Smyth 2004, Linear models and empirical Bayes methods (moderated t); Benjamini,
//           Hochberg 1995, Controlling the false discovery rate.
#pragma once
#include <cstddef>
#include <utility>
#include <vector>

#include "bench/harness/statistics.h"

namespace retort::bench {

inline constexpr std::size_t kLeastBlocks = 3;   // a side; fewer say nothing about drift
inline constexpr double kFalseDiscovery = 0.01;  // share of "slower" that may be wrong; no change
                                                 // at all: chance that any case is called slower
inline constexpr double kConfidence = 0.99;      // of each printed interval by itself

enum class Verdict { kUndecided, kSame, kSlower, kFaster };

struct Comparison {
  double ratio = 0;          // after / before: of the geometric means of the blocks' medians
  double low = 0, high = 0;  // its interval; NaN where undecided
  double p = 1;              // that the ratio is not beyond the threshold on its side; NaN likewise
  Verdict verdict = Verdict::kUndecided;
};

struct Comparisons {
  std::vector<Comparison> cases;  // in the order given
  std::size_t decided = 0;
  /// The ratio that one case alone has to show to be called slower, where its blocks lie as far
  /// apart as is usual in these files; NaN if nothing was decided.
  double smallest_found = 0;
};

/// Before and after of every case, each with samples in all of its blocks. A case is called slower
/// or faster if its ratio is beyond 1 + threshold or below 1 / (1 + threshold), at a
/// false-discovery rate of kFalseDiscovery over all cases that can be decided.
Comparisons decide(const std::vector<std::pair<Blocks, Blocks>>& cases, double threshold);

}  // namespace retort::bench
