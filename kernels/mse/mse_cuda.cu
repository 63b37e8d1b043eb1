#include "kernels/common/plugin.h"
#include "kernels/mse/mse.cuh"

RETORT_CUDA_PLUGIN(mse) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(mse, MseArgs);
  RETORT_CUDA_BIND(mse_backward, MseBackwardArgs);
}
