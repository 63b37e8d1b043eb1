#include "kernels/common/plugin.h"
#include "kernels/row_rank/row_rank.cuh"

RETORT_CUDA_PLUGIN(row_rank) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(row_rank, RowRankArgs);
}
