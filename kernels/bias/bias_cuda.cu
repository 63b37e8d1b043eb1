#include "kernels/bias/bias.cuh"
#include "kernels/common/plugin.h"

RETORT_CUDA_PLUGIN(bias) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(bias, BiasArgs);
  RETORT_CUDA_BIND(bias_backward, BiasBackwardArgs);
}
