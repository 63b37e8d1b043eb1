// Batch normalisation layer, with the ReLU and the residual addition that follow it in ResNets.
#pragma once
#include <vector>

#include "engine/ops/channel_statistics.h"
#include "nn/module.h"

namespace retort::nn {

/// What the batch norms that train in this thread see, while this lives: for whoever asks whether a
/// batch is large enough for them. One at a time.
class BatchNormWatch {
 public:
  struct Seen {
    Tensor running_var;   // of the layer
    std::int64_t values;  // of each channel
  };
  BatchNormWatch();
  ~BatchNormWatch();
  BatchNormWatch(const BatchNormWatch&) = delete;
  BatchNormWatch& operator=(const BatchNormWatch&) = delete;
  const std::vector<Seen>& seen() const { return seen_; }

 private:
  friend class BatchNorm;
  std::vector<Seen> seen_;
};

/// y = [relu](bn(x) + residual); running statistics with momentum 0.1, epsilon 1e-5 (PyTorch's).
///
/// Shapes    x, residual, y (..., C); weight, bias, running_mean, running_var (C).
/// Errors    kUsage in training for one value of each channel, which has no variance.
class BatchNorm : public Module {
 public:
  explicit BatchNorm(std::int64_t channels);
  /// statistics: those of x, from the convolution that made it (engine/ops/channel_statistics.h).
  Tensor forward(const Tensor& x, bool relu = false, const Tensor& residual = {},
                 const ChannelStatistics& statistics = {}) const;

  /// What evaluation mode does to a channel: bn(x) = scale * x + shift.
  struct Affine {
    std::vector<double> scale, shift;  // (C)
  };
  Affine affine() const;
  /// Makes evaluation mode x + shift, up to 3e-8 of x: weight 1, running mean 0 and variance 1 -
  /// epsilon.
  void keep_shift_alone();

 private:
  Tensor& weight_;
  Tensor& bias_;
  Tensor& running_mean_;
  Tensor& running_var_;
};

}  // namespace retort::nn
