// Medians, their spread, and the interval of a ratio within one run.
#pragma once
#include <cstdint>
#include <vector>

namespace retort::bench {

/// Samples taken back to back. Between blocks the machine may have drifted.
using Block = std::vector<double>;
using Blocks = std::vector<Block>;

std::vector<double> joined(const Blocks& blocks);

/// Middle value (mean of the two middle ones); NaN for none.
double median(std::vector<double> values);
/// Quantile q in [0, 1] by linear interpolation; NaN for none.
double quantile(std::vector<double> values, double q);
/// Median absolute deviation from the median, not scaled.
double median_absolute_deviation(const std::vector<double>& values);

struct Ratio {
  double value = 0, low = 0, high = 0;  // median(b) / median(a) and its interval
};

/// Bootstrap percentile interval of the ratio of medians: blocks are drawn with replacement, then
/// samples within them, so drift between blocks widens the interval. With one block the samples
/// alone are drawn: right for two that took turns, wrong for two runs (verdict.h compares those).
/// Empty blocks count as absent. Deterministic.
///
/// Source    Davison, Hinkley 1997, Bootstrap Methods and their Application, 3.8 (hierarchical).
Ratio bootstrap_ratio(const Blocks& a, const Blocks& b, double confidence = 0.99,
                      int resamples = 2000);

}  // namespace retort::bench
