#include "kernels/common/plugin.h"
#include "kernels/gather_rows/gather_rows.cuh"

RETORT_CUDA_PLUGIN(gather_rows) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(gather_rows, GatherRowsArgs);
  RETORT_CUDA_BIND(scatter_rows, ScatterRowsArgs);
}
