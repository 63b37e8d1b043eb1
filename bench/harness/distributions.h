// Student's t, and the two functions that the spread of variances needs.
#pragma once

namespace retort::bench {

/// P(T > t) for Student's t with `df` > 0 degrees of freedom; the normal tail where df is infinite.
double student_tail(double t, double df);
/// The t whose tail is `tail`, 0 < tail < 1.
double student_quantile(double tail, double df);

/// Derivative of log Gamma(x), x > 0, and its own derivative.
double digamma(double x);
double trigamma(double x);
/// The x with trigamma(x) = y, y > 0.
double trigamma_inverse(double y);

}  // namespace retort::bench
