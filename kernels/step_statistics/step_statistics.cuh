// CUDA kernel of the step's numbers and its launch configuration.
#pragma once
#include "kernels/simt/simt.h"
#include "kernels/step_statistics/step_statistics_math.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

// Threads stride over the rows, one column after the other, and each warp adds its lanes; then
// thread k adds the warps of column k and writes the number. Shared: 16 * 8 doubles, 1,024 bytes.
// Launch: one block of 256.
static __global__ void __launch_bounds__(256)
    step_statistics_one_block_kernel(StepStatisticsArgs a) {
  SIMT_SHARED(double, slots, [kMaxStepColumns][8]);
  const int thread = static_cast<int>(threadIdx.x);
  for (int k = 0; k < a.count; ++k) {
    if (!step_column_has_rows(a.columns[k])) continue;
    double mine = 0;
    for (std::int64_t i = thread; i < a.rows; i += 256) mine += step_column_of_row(a.columns[k], i);
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) mine += __shfl_xor_sync(~0u, mine, d);
    if (thread % 32 == 0) slots[k][thread / 32] = mine;
  }
  __syncthreads();
  if (thread >= a.count) return;
  double part = 0;
  if (step_column_has_rows(a.columns[thread]))
    for (int w = 0; w < 8; ++w) part += slots[thread][w];
  else
    part = step_column_alone(a.columns[thread]);
  double* const row = a.numbers + a.pitch * (a.slot ? *a.slot : 0);
  row[thread] = (a.add ? row[thread] : 0) + part;
}

}  // namespace SIMT_NS

inline void step_statistics_launch(const Context& context, const StepStatisticsArgs& args) {
  using namespace SIMT_NS;
  simt::launch({"step_statistics", 1, 256, 0, static_cast<cudaStream_t>(context.stream)},
               step_statistics_one_block_kernel, args);
}

}  // namespace retort::kernels
