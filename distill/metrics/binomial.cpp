#include "distill/metrics/binomial.h"

#include <algorithm>
#include <cmath>

#include "distill/metrics/students_t.h"
#include "kernels/common/check.h"

namespace retort::distill {
namespace {

void check(std::int64_t k, std::int64_t n, double level) {
  RETORT_CHECK(n >= 1 && k >= 0 && k <= n,
               "[binomial] expected 0 <= k <= n and n >= 1, got k = ", k, ", n = ", n);
  RETORT_CHECK(level > 0 && level < 1, "[binomial] expected a level within 0 and 1, got ", level);
}

// The x with I_x(a, b) = p, by bisection: I grows with x.
double beta_quantile(double p, double a, double b) {
  double low = 0, high = 1;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (students_t::incomplete_beta(a, b, middle) < p ? low : high) = middle;
  }
  return (low + high) / 2;
}

}  // namespace

Interval clopper_pearson(std::int64_t k, std::int64_t n, double level) {
  check(k, n, level);
  const double tail = (1 - level) / 2;
  const double right = static_cast<double>(k), wrong = static_cast<double>(n - k);
  // P(X >= k) = I_p(k, n - k + 1)
  return {k == 0 ? 0 : beta_quantile(tail, right, wrong + 1),
          k == n ? 1 : beta_quantile(1 - tail, right + 1, wrong)};
}

Interval wilson(std::int64_t k, std::int64_t n, double level) {
  check(k, n, level);
  const double z = student_quantile((1 - level) / 2, students_t::kNormalFrom);
  const double all = static_cast<double>(n), p = static_cast<double>(k) / all, zz = z * z / all;
  const double centre = (p + zz / 2) / (1 + zz);
  const double half = std::sqrt(p * (1 - p) * zz + zz * zz / 4) / (1 + zz);
  // Rounding alone would leave 1e-17 at the ends.
  return {k == 0 ? 0 : std::max(0.0, centre - half), k == n ? 1 : std::min(1.0, centre + half)};
}

}  // namespace retort::distill
