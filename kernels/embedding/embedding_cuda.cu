#include "kernels/common/plugin.h"
#include "kernels/embedding/embedding.cuh"

RETORT_CUDA_PLUGIN(embedding) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(embedding, EmbeddingArgs);
}
