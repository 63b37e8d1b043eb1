#include "kernels/adamw/adamw.cuh"
#include "kernels/common/plugin.h"

RETORT_CUDA_PLUGIN(adamw) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(adamw, AdamWArgs);
}
