#include "kernels/common/plugin.h"
#include "kernels/grad_norm/grad_norm.cuh"

RETORT_CUDA_PLUGIN(grad_norm) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(grad_norm, GradNormArgs);
}
