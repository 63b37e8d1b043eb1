#include "bench/harness/distributions.h"

#include <cmath>
#include <limits>

namespace retort::bench {

// Both: up to x >= 10 by recurrence, there by the asymptotic series.
double digamma(double x) {
  double below = 0;
  for (; x < 10; ++x) below += 1 / x;
  const double s = 1 / (x * x);
  return std::log(x) - 1 / (2 * x) - s * (1.0 / 12 - s * (1.0 / 120 - s * (1.0 / 252 - s / 240))) -
         below;
}

double trigamma(double x) {
  double below = 0;
  for (; x < 10; ++x) below += 1 / (x * x);
  const double s = 1 / (x * x);
  return 1 / x + s / 2 + s / x * (1.0 / 6 - s * (1.0 / 30 - s * (1.0 / 42 - s / 30))) + below;
}

double trigamma_inverse(double y) {
  double low = std::log(1e-8), high = std::log(1e8);  // falls from 1e16 to 1e-8
  for (int i = 0; i < 100; ++i) {
    const double middle = (low + high) / 2;
    (trigamma(std::exp(middle)) > y ? low : high) = middle;
  }
  return std::exp((low + high) / 2);
}

}  // namespace retort::bench
