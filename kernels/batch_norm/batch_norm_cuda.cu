#include "kernels/batch_norm/batch_norm.cuh"
#include "kernels/common/plugin.h"

RETORT_CUDA_PLUGIN(batch_norm) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(batch_norm, BatchNormArgs);
  RETORT_CUDA_BIND(batch_norm_backward, BatchNormBackwardArgs);
}
