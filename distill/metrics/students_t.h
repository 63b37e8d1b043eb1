// Student's t, without tables: intervals of the report, verdicts of distill_bench.
#pragma once
#include <cmath>

namespace retort::distill {
namespace students_t {

inline constexpr double kNormalFrom = 1e6;  // degrees of freedom from which t is the normal

// I_x(a, b) by its continued fraction, which converges quickly for x < (a + 1) / (a + b + 2).
//
// Source    Numerical Recipes, 3rd edition, 6.4 (modified Lentz).
inline double beta_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  const auto kept = [](double v) { return std::abs(v) < kTiny ? kTiny : v; };
  double c = 1, d = 1 / kept(1 - (a + b) * x / (a + 1)), product = d;
  for (int m = 1; m < 10000; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / kept(1 + even * d), c = kept(1 + even / c), product *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / kept(1 + odd * d), c = kept(1 + odd / c), product *= d * c;
    if (std::abs(d * c - 1) < 1e-14) break;
  }
  return product;
}

inline double incomplete_beta(double a, double b, double x) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const double front = std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) +
                                a * std::log(x) + b * std::log1p(-x));
  if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(a, b, x) / a;
  return 1 - front * beta_fraction(b, a, 1 - x) / b;
}

}  // namespace students_t

/// P(T > t) for Student's t with `df` > 0 degrees of freedom; the normal tail where df is infinite.
inline double student_tail(double t, double df) {
  if (std::isnan(t)) return t;
  if (df >= students_t::kNormalFrom) return std::erfc(t / std::sqrt(2.0)) / 2;
  if (std::isinf(t)) return t > 0 ? 0 : 1;
  const double both = students_t::incomplete_beta(df / 2, 0.5, df / (df + t * t));
  return t > 0 ? both / 2 : 1 - both / 2;
}

/// The t whose tail is `tail`, 0 < tail < 1.
inline double student_quantile(double tail, double df) {
  double low = -1, high = 1;
  while (student_tail(low, df) < tail) low *= 2;
  while (student_tail(high, df) > tail) high *= 2;
  for (int i = 0; i < 100; ++i) {
    const double middle = (low + high) / 2;
    (student_tail(middle, df) > tail ? low : high) = middle;
  }
  return (low + high) / 2;
}

}  // namespace retort::distill
