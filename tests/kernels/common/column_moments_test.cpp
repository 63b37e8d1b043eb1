// Moments of columns against sums in double.
#include "kernels/common/column_moments.h"

#include <gtest/gtest.h>

#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

template <class T>
void check(std::int64_t rows, std::int64_t columns, double shift, double rtol) {
  const std::string what = join(rows, " x ", columns, " around ", shift);
  const Tensor t = randn({rows, columns}, 1, dtype_of<T>, 1, shift);
  const std::vector<double> x = t.to_vector<double>();
  // One more element each: what lies behind must stay.
  std::vector<T> mean(static_cast<std::size_t>(columns) + 1, T(77)), m2 = mean;
  column_moments(t.data<T>(), rows, columns, mean.data(), m2.data());
  EXPECT_EQ(mean.back(), T(77)) << what;
  EXPECT_EQ(m2.back(), T(77)) << what;
  const auto width = static_cast<std::size_t>(columns);
  for (std::size_t c = 0; c < width; ++c) {
    double sum = 0, square = 0;
    for (std::size_t i = c; i < x.size(); i += width) sum += x[i];
    const double want = sum / static_cast<double>(rows);
    for (std::size_t i = c; i < x.size(); i += width) square += (x[i] - want) * (x[i] - want);
    ASSERT_TRUE(close(static_cast<double>(mean[c]), want, 0, rtol * (1 + std::abs(shift))))
        << what << " mean " << c << ": got " << mean[c] << ", want " << want;
    // What the rounding of the mean adds.
    const double slack = std::pow(rtol * (1 + std::abs(shift)), 2) * static_cast<double>(rows);
    ASSERT_TRUE(close(static_cast<double>(m2[c]), square, 20 * rtol, slack + 1e-30))
        << what << " m2 " << c << ": got " << m2[c] << ", want " << square;
  }
}

TEST(ColumnMoments, equal_sums_in_double_at_edge_sizes) {
  for (const std::int64_t rows : {1, 2, 3, 7, 63, 64, 65, 1023, 1024, 1025, 4100})
    for (const std::int64_t columns : {1, 3, 15, 16, 17, 63, 64, 65, 100, 130}) {
      check<float>(rows, columns, 0.5, 1e-6);
      check<double>(rows, columns, 0.5, 1e-14);
    }
}

TEST(ColumnMoments, nothing_cancels_where_the_mean_is_large) {
  for (const std::int64_t columns : {3, 16, 64, 130}) check<float>(3000, columns, 1000, 1e-6);
}

// A sum of this many values in one float would be wrong in the fourth digit.
TEST(ColumnMoments, many_rows_do_not_wear_the_sums_out) {
  const std::int64_t rows = 3000000;
  const Tensor t = Tensor::full({rows, 2}, 0.1);
  float mean[2], m2[2];
  column_moments(t.data<float>(), rows, 2, mean, m2);
  for (const int c : {0, 1}) {
    EXPECT_NEAR(mean[c], 0.1, 5e-7);
    EXPECT_LT(m2[c], 3e6 * 5e-7 * 5e-7);
  }
}

}  // namespace
}  // namespace retort::test
