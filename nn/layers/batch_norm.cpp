#include "nn/layers/batch_norm.h"

#include "engine/ops/batch_norm.h"

namespace retort::nn {

BatchNorm::BatchNorm(std::int64_t channels)
    : weight_(add_parameter("weight", {channels}, Init::constant(1))),
      bias_(add_parameter("bias", {channels}, Init::constant(0))),
      running_mean_(add_buffer("running_mean", Tensor::zeros({channels}))),
      running_var_(add_buffer("running_var", Tensor::full({channels}, 1))) {}

Tensor BatchNorm::forward(const Tensor& x, bool relu, const Tensor& residual) const {
  BatchNormOptions options;
  options.training = training();
  options.relu = relu;
  return batch_norm(x, weight_, bias_, running_mean_, running_var_, options, residual);
}

}  // namespace retort::nn
