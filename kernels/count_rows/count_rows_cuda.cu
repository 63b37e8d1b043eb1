#include "kernels/common/plugin.h"
#include "kernels/count_rows/count_rows.cuh"

RETORT_CUDA_PLUGIN(count_rows) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(count_rows, CountRowsArgs);
}
