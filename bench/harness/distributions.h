// What the spread of variances needs.
#pragma once

namespace retort::bench {

/// Derivative of log Gamma(x), x > 0, and its own derivative.
double digamma(double x);
double trigamma(double x);
/// The x with trigamma(x) = y, y > 0.
double trigamma_inverse(double y);

}  // namespace retort::bench
