#include "kernels/common/plugin.h"
#include "kernels/slice_sum/slice_sum.cuh"

RETORT_CUDA_PLUGIN(slice_sum) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(slice_sum, SliceSumArgs);
  RETORT_CUDA_BIND(running_average, RunningAverageArgs);
}
