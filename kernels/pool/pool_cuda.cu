#include "kernels/common/plugin.h"
#include "kernels/pool/pool.cuh"

RETORT_CUDA_PLUGIN(pool) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(max_pool, MaxPoolArgs);
  RETORT_CUDA_BIND(max_pool_backward, MaxPoolBackwardArgs);
  RETORT_CUDA_BIND(average_pool, AveragePoolArgs);
  RETORT_CUDA_BIND(average_pool_backward, AveragePoolBackwardArgs);
}
