#include "kernels/axpy/axpy.cuh"
#include "kernels/common/plugin.h"

RETORT_CUDA_PLUGIN(axpy) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(axpy, AxpyArgs);
  RETORT_CUDA_BIND(axpy_rows, AxpyRowsArgs);
}
