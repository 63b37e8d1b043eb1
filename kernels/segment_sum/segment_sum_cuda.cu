#include "kernels/common/plugin.h"
#include "kernels/segment_sum/segment_sum.cuh"

RETORT_CUDA_PLUGIN(segment_sum) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(segment_sum, SegmentSumArgs);
  RETORT_CUDA_BIND(segment_spread, SegmentSpreadArgs);
  RETORT_CUDA_BIND(segment_starts, SegmentStartsArgs);
}
