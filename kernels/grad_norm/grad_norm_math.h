// The last step of the gradient norm, shared by CPU and CUDA.
#pragma once
#include <cmath>
#include <cstdint>

#include "kernels/common/hd.h"

namespace retort::kernels {

RETORT_HD void grad_norm_finish(double sum_of_squares, double max_norm, float* norm, float* clip,
                                std::int32_t* not_finite) {
  const double n = std::sqrt(sum_of_squares);
  // Both false for NaN. The norm is a float; the factor needs only the sum to be finite.
  const bool finite = n <= 3.4028234663852886e38, clips = n <= 1.7976931348623157e308;
  if (norm) *norm = static_cast<float>(n);
  if (clip) {
    const double factor = max_norm / (n + 1e-6);
    *clip = max_norm > 0 && clips && factor < 1 ? static_cast<float>(factor) : 1.0f;
  }
  if (not_finite) *not_finite = finite ? 0 : 1;
}

}  // namespace retort::kernels
