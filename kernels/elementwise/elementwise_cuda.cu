#include "kernels/common/plugin.h"
#include "kernels/elementwise/elementwise.cuh"

RETORT_CUDA_PLUGIN(elementwise) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(unary, UnaryArgs);
  RETORT_CUDA_BIND(unary_backward, UnaryBackwardArgs);
  RETORT_CUDA_BIND(binary, BinaryArgs);
  RETORT_CUDA_BIND(cast, CastArgs);
  RETORT_CUDA_BIND(fill, FillArgs);
  RETORT_CUDA_BIND(advance, AdvanceArgs);
}
