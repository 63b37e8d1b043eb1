// Sums over the rows of a matrix, one per column: the loop that reduce, the gradient of a bias and
// whatever else needs it compile for each instruction set.
#if defined(RETORT_COLUMN_SUMS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RETORT_COLUMN_SUMS_INL_H_
#undef RETORT_COLUMN_SUMS_INL_H_
#else
#define RETORT_COLUMN_SUMS_INL_H_
#endif

#include <algorithm>

#include "hwy/highway.h"
#include "kernels/common/context.h"
#include "kernels/common/dtype.h"
#include "kernels/common/parallel.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {

struct ColumnSums {
  Scratch* scratch;
  std::int64_t rows, columns;
};

// Rows are added in runs of kRowRun (float lanes, one per column), runs in order in double.
constexpr std::int64_t kRowRun = 64, kColumnRun = 512;

template <class A, class Load>
void columns_of_run(std::int64_t first_row, std::int64_t rows, std::int64_t first_column,
                    std::int64_t n, double* total, const Load& load) {
  A lane[kColumnRun];
  for (std::int64_t c = 0; c < n; ++c) lane[c] = A(0);
  for (std::int64_t r = first_row; r < first_row + rows; ++r)
    for (std::int64_t c = 0; c < n; ++c) lane[c] += load(r, first_column + c);
  for (std::int64_t c = 0; c < n; ++c) total[c] += static_cast<double>(lane[c]);
}

/// out[c] = factor * sum over r of load(r, c), which is called once per element, on several
/// threads; in an order fixed by the sizes. out may be null: then load is only called.
template <class T, class Load>
void column_sums(const ColumnSums& s, T* out, double factor, const Load& load) {
  using A = accumulator_t<T>;
  const std::int64_t rows = s.rows, columns = s.columns;
  // Bands of rows make enough chunks for the threads when the matrix is tall and narrow.
  const std::int64_t band = std::max<std::int64_t>(
      kRowRun, (((std::int64_t{1} << 15) / columns) + kRowRun - 1) / kRowRun * kRowRun);
  const std::int64_t bands = std::max<std::int64_t>(1, (rows + band - 1) / band);
  double* const partial = static_cast<double*>(
      s.scratch->get(static_cast<std::size_t>(bands * columns) * sizeof(double)));
  parallel_for(bands, 1, [=, &load](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) {
      double* const total = partial + b * columns;
      std::fill(total, total + columns, 0.0);
      const std::int64_t end = std::min(rows, (b + 1) * band);
      for (std::int64_t c = 0; c < columns; c += kColumnRun)
        for (std::int64_t r = b * band; r < end; r += kRowRun)
          columns_of_run<A>(r, std::min(kRowRun, end - r), c, std::min(kColumnRun, columns - c),
                            total + c, load);
    }
  });
  if (out == nullptr) return;
  for (std::int64_t b = 1; b < bands; ++b)
    for (std::int64_t c = 0; c < columns; ++c) partial[c] += partial[b * columns + c];
  for (std::int64_t c = 0; c < columns; ++c)
    out[c] = from_float<T>(static_cast<A>(factor * partial[c]));
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard that flips with the target
