#include "kernels/common/plugin.h"
#include "kernels/dropout/dropout.cuh"

RETORT_CUDA_PLUGIN(dropout) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(dropout, DropoutArgs);
}
