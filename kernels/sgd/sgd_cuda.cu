#include "kernels/common/plugin.h"
#include "kernels/sgd/sgd.cuh"

RETORT_CUDA_PLUGIN(sgd) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(sgd, SgdArgs);
}
