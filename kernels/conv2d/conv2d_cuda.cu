#include "kernels/common/plugin.h"
#include "kernels/conv2d/conv2d.cuh"

RETORT_CUDA_PLUGIN(conv2d) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(conv2d, Conv2dArgs);
  RETORT_CUDA_BIND(conv2d_backward_data, Conv2dBackwardDataArgs);
  RETORT_CUDA_BIND(conv2d_backward_weight, Conv2dBackwardWeightArgs);
}
