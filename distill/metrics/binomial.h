// Intervals of a proportion from the counts of one run: what an accuracy on n rows leaves open.
#pragma once
#include <cstdint>

namespace retort::distill {

struct Interval {
  double low = 0, high = 1;
};

/// Exact interval of Clopper and Pearson: it covers the true proportion with at least `level`.
///
///   low  = the p with P(X >= k) = (1 - level) / 2, 0 for k = 0
///   high = the p with P(X <= k) = (1 - level) / 2, 1 for k = n,     X ~ Binomial(n, p)
///
/// Numerics  to 1e-6 for n up to 1e8
/// Errors    kUsage unless 0 <= k <= n, n >= 1, 0 < level < 1
/// Source    Clopper and Pearson 1934, Biometrika 26:404.
Interval clopper_pearson(std::int64_t k, std::int64_t n, double level = 0.95);

/// Wilson's score interval: about `level` on average, within 0 and 1, narrower than the exact one.
///
///   (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n),     p = k / n
///
/// Errors    as above
/// Source    Wilson 1927, JASA 22:209; compared with others by Newcombe 1998, Statistics in
///           Medicine 17:857.
Interval wilson(std::int64_t k, std::int64_t n, double level = 0.95);

}  // namespace retort::distill
