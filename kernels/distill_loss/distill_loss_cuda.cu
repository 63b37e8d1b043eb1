#include "kernels/common/plugin.h"
#include "kernels/distill_loss/distill_loss.cuh"

RETORT_CUDA_PLUGIN(distill_loss) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(distill_loss, DistillLossArgs);
  RETORT_CUDA_BIND(count_rows, CountRowsArgs);
  RETORT_CUDA_BIND(scale_rows, ScaleRowsArgs);
}
