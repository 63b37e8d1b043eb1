// 2-D convolution layer without bias (a batch norm follows it in every model here).
#pragma once
#include "engine/ops/conv2d.h"
#include "nn/module.h"

namespace retort::nn {

/// Which side of a convolution He initialisation counts.
enum class Fan : std::uint8_t { kIn, kOut };

/// Shapes    x (B, H, W, C), weight (K, R, S, C) with R = S = kernel, y (B, H', W', K),
///           H' = (H + 2 padding - kernel) / stride + 1.
class Conv2d : public Module {
 public:
  struct Config {
    std::int64_t in, out;
    int kernel = 3, stride = 1, padding = 1;
    Fan fan = Fan::kOut;
  };
  /// Weights by He initialisation, unless `init` is given.
  explicit Conv2d(const Config& config);
  Conv2d(const Config& config, const Init& init);
  /// statistics: see engine/ops/conv2d.h.
  Tensor forward(const Tensor& x, ChannelStatistics* statistics = nullptr) const;

  const Tensor& weight() const { return weight_; }
  Conv2dOptions options() const { return {config_.stride, config_.padding}; }

 private:
  Config config_;
  Tensor& weight_;
};

}  // namespace retort::nn
