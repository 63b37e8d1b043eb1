// CUDA kernels of slice_sum and running_average, and their launch configurations.
#pragma once
#include "kernels/simt/simt.h"
#include "kernels/slice_sum/slice_sum.h"
#include "kernels/slice_sum/slice_sum_math.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

// The newest first, as the fold wants them. Indexed by constants alone: else the compiler copies
// the array to every thread's stack.
struct SliceNodes {
  const float* values[kMaxSliceNodes];
};

// One thread per element, grid-stride.
// Shared: none. Launch: any grid; 1 <= count <= kMaxSliceNodes.
static __global__ void __launch_bounds__(256)
    slice_sum_thread_per_element_kernel(SliceNodes nodes, int count, float* out, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    float sum = nodes.values[0][i];
#pragma unroll
    for (int k = 1; k < kMaxSliceNodes; ++k) {
      if (k >= count) break;
      sum = nodes.values[k][i] + sum;
    }
    out[i] = sum;
  }
}

// One thread per element, grid-stride.
// Shared: none. Launch: any grid.
static __global__ void __launch_bounds__(256)
    running_average_thread_per_element_kernel(float* running, const float* sum, float keep,
                                              float take, float slices, const std::int32_t* skip,
                                              std::int64_t n) {
  if (skip != nullptr && *skip != 0) return;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step)
    running[i] = running_average_element(running[i], sum[i], keep, take, slices);
}

}  // namespace SIMT_NS

inline void slice_sum_launch(const Context& context, const SliceSumArgs& args) {
  using namespace SIMT_NS;
  SliceNodes nodes{};
  for (int k = 0; k < args.count; ++k) nodes.values[k] = args.nodes[args.count - 1 - k];
  const std::int64_t blocks = (args.n + 255) / 256;
  simt::launch({"slice_sum", static_cast<unsigned>(blocks < 65536 ? blocks : 65536), 256, 0,
                static_cast<cudaStream_t>(context.stream)},
               slice_sum_thread_per_element_kernel, nodes, args.count, args.out, args.n);
}

inline void running_average_launch(const Context& context, const RunningAverageArgs& args) {
  using namespace SIMT_NS;
  const std::int64_t blocks = (args.n + 255) / 256;
  simt::launch({"running_average", static_cast<unsigned>(blocks < 65536 ? blocks : 65536), 256, 0,
                static_cast<cudaStream_t>(context.stream)},
               running_average_thread_per_element_kernel, args.running, args.sum,
               static_cast<float>(1 - args.momentum), static_cast<float>(args.momentum),
               static_cast<float>(args.slices), args.skip, args.n);
}

}  // namespace retort::kernels
