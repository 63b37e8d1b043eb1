// Mean, spread and Student's t, without tables.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/common/check.h"
#include "tools/report/report.h"

namespace retort::tools {
namespace {

// Regularised incomplete beta I_x(a, b) by its continued fraction (Lentz), valid for x <
// (a+1)/(a+b+2).
double beta_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  double c = 1, d = 1 - (a + b) * x / (a + 1);
  if (std::abs(d) < kTiny) d = kTiny;
  d = 1 / d;
  double h = d;
  for (int m = 1; m <= 500; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 + even * d;
    c = 1 + even / c;
    if (std::abs(d) < kTiny) d = kTiny;
    if (std::abs(c) < kTiny) c = kTiny;
    d = 1 / d;
    h *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 + odd * d;
    c = 1 + odd / c;
    if (std::abs(d) < kTiny) d = kTiny;
    if (std::abs(c) < kTiny) c = kTiny;
    d = 1 / d;
    const double step = d * c;
    h *= step;
    if (std::abs(step - 1) < 1e-15) break;
  }
  return h;
}

double incomplete_beta(double a, double b, double x) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const double front = std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) +
                                a * std::log(x) + b * std::log1p(-x));
  if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(a, b, x) / a;
  return 1 - front * beta_fraction(b, a, 1 - x) / b;
}

double student_t_cdf(double t, double dof) {
  const double tail = 0.5 * incomplete_beta(dof / 2, 0.5, dof / (dof + t * t));
  return t >= 0 ? 1 - tail : tail;
}

}  // namespace

double student_t_quantile(double p, double dof) {
  RETORT_CHECK(p > 0 && p < 1 && dof >= 1,
               "[student_t_quantile] expected 0 < p < 1 and dof >= 1, got ", p, ", ", dof);
  double high = 1;
  const double q = std::max(p, 1 - p);
  while (student_t_cdf(high, dof) < q) high *= 2;
  double low = 0;
  for (int i = 0; i < 200 && high - low > 1e-13 * high; ++i) {
    const double middle = 0.5 * (low + high);
    (student_t_cdf(middle, dof) < q ? low : high) = middle;
  }
  return p < 0.5 ? -high : high;
}

Summary summarize(const std::vector<double>& values) {
  Summary s;
  s.n = static_cast<std::int64_t>(values.size());
  s.low95 = s.high95 = std::numeric_limits<double>::quiet_NaN();
  if (values.empty()) {
    s.mean = s.median = std::numeric_limits<double>::quiet_NaN();
    return s;
  }
  const double n = static_cast<double>(values.size());
  for (const double v : values) s.mean += v / n;
  std::vector<double> sorted = values;
  std::sort(sorted.begin(), sorted.end());
  const std::size_t half = sorted.size() / 2;
  s.median = sorted.size() % 2 ? sorted[half] : 0.5 * (sorted[half - 1] + sorted[half]);
  if (values.size() < 2) return s;
  double squares = 0;
  for (const double v : values) squares += (v - s.mean) * (v - s.mean);
  s.sd = std::sqrt(squares / (n - 1));
  const double half_width = student_t_quantile(0.975, n - 1) * s.sd / std::sqrt(n);
  s.low95 = s.mean - half_width;
  s.high95 = s.mean + half_width;
  return s;
}

}  // namespace retort::tools
