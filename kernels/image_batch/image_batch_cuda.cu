#include "kernels/common/plugin.h"
#include "kernels/image_batch/image_batch.cuh"

RETORT_CUDA_PLUGIN(image_batch) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(image_batch, ImageBatchArgs);
}
