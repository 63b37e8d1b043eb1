// The axes of charts: ranges, ticks and their labels.
#pragma once
#include <limits>
#include <string>
#include <vector>

namespace retort::tools {

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  void include(double v);  // NaN and infinities are passed over
  bool empty() const { return low > high; }
  /// Beyond 1e300 the arithmetic of ticks overflows.
  bool is_drawable() const;
  /// Gives width to a range of one value, or of values that only rounding tells apart; else `share`
  /// of its width on both sides.
  void widen(double share);
  /// Where v lies, in percent from the low end.
  double percent(double v) const { return 100 * (v - low) / (high - low); }
};

/// Ticks at 1, 2 or 5 times a power of ten, about `wanted` of them, at least `least_unit` apart.
std::vector<double> ticks(const Range& range, int wanted, double least_unit = 0);
/// The label of a tick; -0 and what rounding left of 0 are 0.
std::string tick_text(double tick, const Range& range);
/// printf of one or two numbers, at most 95 characters.
std::string format(const char* pattern, double a, double b = 0);

}  // namespace retort::tools
