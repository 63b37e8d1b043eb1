#include "kernels/common/plugin.h"
#include "kernels/gemm/gemm.cuh"

RETORT_CUDA_PLUGIN(gemm) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(gemm, GemmArgs);
}
