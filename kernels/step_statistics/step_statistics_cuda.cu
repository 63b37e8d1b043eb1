#include "kernels/common/plugin.h"
#include "kernels/step_statistics/step_statistics.cuh"

RETORT_CUDA_PLUGIN(step_statistics) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(step_statistics, StepStatisticsArgs);
}
