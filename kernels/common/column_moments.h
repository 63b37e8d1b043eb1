// Mean and spread of the columns of a matrix on the CPU: batch norm's statistics, and those that a
// convolution leaves for it.
#pragma once
#include <cstdint>

namespace retort {

/// Rows that are read as one, so that few columns fill vectors too: (R, 16) as (R / 4, 64).
constexpr std::int64_t column_fold(std::int64_t columns) {
  return columns >= 64 ? 1 : 64 / columns;
}

/// mean[c] = 1/R sum_r x[r, c]    m2[c] = sum_r (x[r, c] - mean[c])^2
///
/// Shapes    x (rows, columns) adjacent, rows >= 1, columns >= 1; mean, m2 (columns).
/// Numerics  two passes over blocks of rows that stay in the cache, so nothing cancels where
///           |mean| >> spread; blocks are merged by Chan's formula in double. In the calling
///           thread, in an order fixed by the sizes.
/// Source    Chan, Golub, LeVeque 1979.
void column_moments(const float* x, std::int64_t rows, std::int64_t columns, float* mean,
                    float* m2);
void column_moments(const double* x, std::int64_t rows, std::int64_t columns, double* mean,
                    double* m2);

}  // namespace retort
