// CUDA kernel of the step's numbers and its launch configuration.
#pragma once
#include "kernels/simt/pack.h"
#include "kernels/simt/simt.h"
#include "kernels/step_statistics/step_statistics.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

template <class T>
SIMT_D double step_lane_sum(const T* values, std::int64_t n) {
  double mine = 0;
  if (values != nullptr)
    for (std::int64_t i = threadIdx.x; i < n; i += 256) mine += static_cast<double>(values[i]);
  return mine;
}

// Small numbers are exact in double in any order.
SIMT_D double step_lane_samples(const float* confidence, std::int64_t n) {
  double mine = 0;
  for (std::int64_t i = threadIdx.x; i < n; i += 256)
    mine += confidence == nullptr || confidence[i] != 0 ? 1.0 : 0.0;
  return mine;
}

// Threads stride over the rows, one array after the other; thread 0 writes the row.
// Shared: 5 * 8 doubles, 320 bytes. Launch: one block of 256.
static __global__ void __launch_bounds__(256)
    step_statistics_one_block_kernel(StepStatisticsArgs a) {
  SIMT_SHARED(double, slots, [5][8]);  // one row a sum, so that none waits for the one before
  const double ce = block_sum(step_lane_sum(a.ce, a.rows), slots[0]),
               kd = block_sum(step_lane_sum(a.kd, a.rows), slots[1]),
               correct = block_sum(step_lane_sum(a.correct, a.rows), slots[2]),
               teacher_correct = block_sum(step_lane_sum(a.teacher_correct, a.rows), slots[3]),
               samples = block_sum(step_lane_samples(a.confidence, a.rows), slots[4]);
  if (threadIdx.x != 0) return;
  const double loss = a.loss_dtype == DType::kF64
                          ? *static_cast<const double*>(a.loss)
                          : static_cast<double>(*static_cast<const float*>(a.loss));
  double* const row = a.numbers + kStepNumbers * (a.slot ? *a.slot : 0);
  const double part[kStepNumbers] = {loss, ce, kd, correct, teacher_correct, samples, 0, 0};
#pragma unroll
  for (int k = 0; k < kStepNumbers; ++k) row[k] = (a.add ? row[k] : 0) + part[k];
}

}  // namespace SIMT_NS

inline void step_statistics_launch(const Context& context, const StepStatisticsArgs& args) {
  using namespace SIMT_NS;
  simt::launch({"step_statistics", 1, 256, 0, static_cast<cudaStream_t>(context.stream)},
               step_statistics_one_block_kernel, args);
}

}  // namespace retort::kernels
