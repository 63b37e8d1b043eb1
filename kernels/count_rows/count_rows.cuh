// CUDA kernel that counts rows and its launch configuration.
#pragma once
#include "kernels/count_rows/count_rows.h"
#include "kernels/simt/pack.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

// Threads stride over the rows; sums of small integers are exact in double in any order.
// Shared: 8 doubles. Launch: one block of 256.
static __global__ void __launch_bounds__(256) count_rows_one_block_kernel(CountRowsArgs a) {
  SIMT_SHARED(double, slots, [8]);
  double mine = 0;
  for (std::int64_t i = threadIdx.x; i < a.rows; i += 256)
    mine += a.targets[i] != a.ignore_index && (a.mask == nullptr || a.mask[i] != 0) ? 1.0 : 0.0;
  const double count = block_sum(mine, slots);
  if (threadIdx.x == 0) *a.count = static_cast<float>(count);
}

}  // namespace SIMT_NS

inline void count_rows_launch(const Context& context, const CountRowsArgs& args) {
  using namespace SIMT_NS;
  simt::launch({"count_rows", 1, 256, 0, static_cast<cudaStream_t>(context.stream)},
               count_rows_one_block_kernel, args);
}

}  // namespace retort::kernels
