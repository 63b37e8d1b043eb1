#include "nn/layers/conv2d.h"

namespace retort::nn {
namespace {

Init he_init(const Conv2d::Config& c) {
  return Init::he_normal((c.fan == Fan::kIn ? c.in : c.out) * c.kernel * c.kernel);
}

}  // namespace

Conv2d::Conv2d(const Config& c)
    : config_(c), weight_(add_parameter("weight", {c.out, c.kernel, c.kernel, c.in}, he_init(c))) {}

Tensor Conv2d::forward(const Tensor& x, ChannelStatistics* statistics) const {
  return conv2d(x, weight_, options(), statistics);
}

}  // namespace retort::nn
