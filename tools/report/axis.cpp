#include "tools/report/axis.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "tools/report/metric_text.h"

namespace retort::tools {

void Range::include(double v) {
  if (!std::isfinite(v)) return;
  low = std::min(low, v);
  high = std::max(high, v);
}

bool Range::is_drawable() const {
  constexpr double kLargest = 1e300;
  return std::abs(low) <= kLargest && std::abs(high) <= kLargest;
}

void Range::widen(double share) {
  const double size = std::max(std::abs(low), std::abs(high));
  const bool wide = high - low > 1e-9 * size && size > 1e-30;
  const double pad = wide ? share * (high - low) : size > 1e-30 ? 0.05 * size : 0.5;
  low -= pad, high += pad;
}

std::vector<double> ticks(const Range& range, int wanted, double least_unit) {
  const double raw = (range.high - range.low) / wanted;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  const double unit = std::max(least_unit, power * (raw / power < 1.5   ? 1
                                                    : raw / power < 3.5 ? 2
                                                    : raw / power < 7.5 ? 5
                                                                        : 10));
  std::vector<double> at;
  const double first = std::ceil(range.low / unit - 1e-9);
  for (int k = 0; k < 64 && (first + k) * unit <= range.high + 1e-9 * unit; ++k)
    at.push_back((first + k) * unit);
  return at;
}

std::string tick_text(double t, const Range& range) {
  return short_number(std::abs(t) < 1e-9 * (range.high - range.low) ? 0 : t);
}

std::string format(const char* pattern, double a, double b) {
  char text[96];
  std::snprintf(text, sizeof text, pattern, a, b);
  return text;
}

}  // namespace retort::tools
