#include "kernels/common/plugin.h"
#include "kernels/reduce/reduce.cuh"

RETORT_CUDA_PLUGIN(reduce) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(sum, SumArgs);
  RETORT_CUDA_BIND(expand, ExpandArgs);
}
