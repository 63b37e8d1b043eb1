#include "kernels/common/plugin.h"
#include "kernels/layer_norm/layer_norm.cuh"

RETORT_CUDA_PLUGIN(layer_norm) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(layer_norm, LayerNormArgs);
  RETORT_CUDA_BIND(layer_norm_backward, LayerNormBackwardArgs);
}
