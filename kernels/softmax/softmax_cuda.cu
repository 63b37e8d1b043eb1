#include "kernels/common/plugin.h"
#include "kernels/softmax/softmax.cuh"

RETORT_CUDA_PLUGIN(softmax) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(softmax, SoftmaxArgs);
  RETORT_CUDA_BIND(softmax_backward, SoftmaxBackwardArgs);
}
