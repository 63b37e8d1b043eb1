// Batch norm of one channel as its contract says it, in double.
#pragma once
#include <algorithm>
#include <cmath>

#include "kernels/batch_norm/batch_norm.h"
#include "kernels/common/composed.h"

namespace retort::kernels {

/// A channel's numbers; x, residual and dy are those of one row.
struct BatchNormChannel {
  double mean = 0, var = 0, epsilon = 1e-5, weight = 1, bias = 0;

  double rstd() const { return 1 / std::sqrt(var + epsilon); }
  double normalized(double x) const { return (x - mean) * rstd(); }
  double value(double x, double residual, bool relu) const {
    const double y = normalized(x) * weight + bias + residual;
    return relu && y < 0 ? 0 : y;
  }
  /// What a running statistic becomes.
  double running_mean(double before, double momentum) const {
    return (1 - momentum) * before + momentum * mean;
  }
  double running_var(double before, double momentum, std::int64_t rows) const {
    const double n = static_cast<double>(rows);
    return (1 - momentum) * before + momentum * var * n / std::max(n - 1, 1.0);
  }
};

/// Mean and variance of x(0) ... x(rows - 1): training.
template <class X>
BatchNormChannel batch_norm_composed(std::int64_t rows, X&& x, double weight, double bias,
                                     double epsilon = 1e-5) {
  const Moments64 m = moments_composed(0, rows, x);
  return {m.mean, m.squares / static_cast<double>(rows), epsilon, weight, bias};
}

/// A channel's gradients. g is dy where relu lets it pass, else 0.
struct BatchNormChannelGradient {
  BatchNormChannel channel;
  double rows = 1;
  bool training = true;
  double dweight = 0, dbias = 0;

  double dx(double g, double x) const {
    const double less = training ? dbias / rows + channel.normalized(x) * dweight / rows : 0;
    return channel.weight * channel.rstd() * (g - less);
  }
};
template <class X, class G>
BatchNormChannelGradient batch_norm_backward_composed(const BatchNormChannel& channel,
                                                      std::int64_t rows, X&& x, G&& g,
                                                      bool training) {
  BatchNormChannelGradient sums{channel, static_cast<double>(rows), training};
  for (std::int64_t r = 0; r < rows; ++r) {
    sums.dbias += g(r);
    sums.dweight += g(r) * channel.normalized(x(r));
  }
  return sums;
}

}  // namespace retort::kernels
