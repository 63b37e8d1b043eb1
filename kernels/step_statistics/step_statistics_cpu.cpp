#include "kernels/step_statistics/step_statistics_math.h"

namespace retort::kernels {

CudaOp<StepStatisticsArgs> step_statistics_cuda = nullptr;

namespace {

// The kernel's order: see StepStatisticsArgs.
double sum_of(const StepColumn& column, std::int64_t rows) {
  double lane[256] = {};
  for (std::int64_t i = 0; i < rows; ++i) lane[i % 256] += step_column_of_row(column, i);
  double total = 0;
  for (double* warp = lane; warp < lane + 256; warp += 32) {
    for (int d = 16; d > 0; d >>= 1)
      for (int l = 0; l < d; ++l) warp[l] += warp[l + d];
    total += warp[0];
  }
  return total;
}

}  // namespace

void step_statistics_cpu(const Context&, const StepStatisticsArgs& a) {
  double* const row = a.numbers + a.pitch * (a.slot ? *a.slot : 0);
  for (int k = 0; k < a.count; ++k) {
    const StepColumn& column = a.columns[k];
    const double part =
        step_column_has_rows(column) ? sum_of(column, a.rows) : step_column_alone(column);
    row[k] = (a.add ? row[k] : 0) + part;
  }
}

}  // namespace retort::kernels
