#include "kernels/common/plugin.h"
#include "kernels/random/random.cuh"

RETORT_CUDA_PLUGIN(random) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(random, RandomArgs);
}
