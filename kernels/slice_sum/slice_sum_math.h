// The arithmetic of one running statistic, shared by CPU and CUDA.
#pragma once
#include <cmath>

#include "kernels/common/hd.h"

namespace retort::kernels {

/// Which operation is fused is said here: ranks update parts that begin anywhere, and a compiler
/// that may choose chooses differently in a loop and in its rest.
RETORT_HD float running_average_element(float running, float sum, float keep, float take,
                                        float slices) {
  return std::fma(keep, running, take * (sum / slices));
}

}  // namespace retort::kernels
