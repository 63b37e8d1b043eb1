#include "nn/layers/conv2d.h"

namespace retort::nn {
namespace {

Init he_init(const Conv2d::Config& c) {
  return Init::he_normal((c.fan == Fan::kIn ? c.in : c.out) * c.kernel * c.kernel);
}

}  // namespace

Conv2d::Conv2d(const Config& c) : Conv2d(c, he_init(c)) {}

Conv2d::Conv2d(const Config& c, const Init& init)
    : config_(c), weight_(add_parameter("weight", {c.out, c.kernel, c.kernel, c.in}, init)) {}

Tensor Conv2d::forward(const Tensor& x, ChannelStatistics* statistics) const {
  return conv2d(x, weight_, options(), statistics);
}

}  // namespace retort::nn
