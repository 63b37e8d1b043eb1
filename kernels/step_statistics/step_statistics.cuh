// CUDA kernel of the step's numbers and its launch configuration.
#pragma once
#include "kernels/simt/pack.h"
#include "kernels/simt/simt.h"
#include "kernels/step_statistics/step_statistics.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

template <class T>
SIMT_D double step_lane_sum(const void* values, std::int64_t n) {
  double mine = 0;
  for (std::int64_t i = threadIdx.x; i < n; i += 256)
    mine += static_cast<double>(static_cast<const T*>(values)[i]);
  return mine;
}

SIMT_D double step_lane_count(const StepColumn& c, std::int32_t ignore_index, std::int64_t n) {
  double mine = 0;
  for (std::int64_t i = threadIdx.x; i < n; i += 256)
    mine += static_cast<const std::int32_t*>(c.values)[i] != ignore_index &&
                    (c.mask == nullptr || c.mask[i] != 0)
                ? 1.0
                : 0.0;
  return mine;
}

// Threads stride over the rows, one column after the other; thread 0 writes the row.
// Shared: 16 * 8 doubles, 1 KiB. Launch: one block of 256.
static __global__ void __launch_bounds__(256)
    step_statistics_one_block_kernel(StepStatisticsArgs a) {
  SIMT_SHARED(double, slots, [kStepColumns][8]);  // a row a sum, so that none waits for another
  double* const row = a.numbers + kStepColumns * (a.slot ? *a.slot : 0);
  for (int k = 0; k < a.count; ++k) {
    const StepColumn c = a.columns[k];
    double made = 0;  // the same branch for all threads
    if (c.kind == StepColumn::Kind::kSumF32)
      made = block_sum(step_lane_sum<float>(c.values, a.rows), slots[k]);
    else if (c.kind == StepColumn::Kind::kSumU8)
      made = block_sum(step_lane_sum<std::uint8_t>(c.values, a.rows), slots[k]);
    else if (c.kind == StepColumn::Kind::kCountI32)
      made = block_sum(step_lane_count(c, a.ignore_index, a.rows), slots[k]);
    else if (c.kind == StepColumn::Kind::kScalarF32)
      made = static_cast<double>(*static_cast<const float*>(c.values));
    else if (c.kind == StepColumn::Kind::kScalarF64)
      made = *static_cast<const double*>(c.values);
    else
      made = c.constant;
    if (threadIdx.x == 0) row[k] = (a.add ? row[k] : 0) + made;
  }
}

}  // namespace SIMT_NS

inline void step_statistics_launch(const Context& context, const StepStatisticsArgs& args) {
  using namespace SIMT_NS;
  simt::launch({"step_statistics", 1, 256, 0, static_cast<cudaStream_t>(context.stream)},
               step_statistics_one_block_kernel, args);
}

}  // namespace retort::kernels
