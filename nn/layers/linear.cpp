#include "nn/layers/linear.h"

#include "engine/ops/cast.h"
#include "engine/ops/linear.h"

namespace retort::nn {
Linear::Linear(std::int64_t in, std::int64_t out) : Linear(in, out, Init::linear_default(in)) {}

Linear::Linear(std::int64_t in, std::int64_t out, const Init& weight_init)
    : weight_(add_parameter("weight", {out, in}, weight_init)),
      bias_(add_parameter("bias", {out}, Init::linear_default(in))) {}

Tensor Linear::forward(const Tensor& x) const {
  return linear(cast(x, weight_.dtype()), weight_, bias_);
}
Tensor Linear::forward_relu(const Tensor& x) const {
  return linear_relu(cast(x, weight_.dtype()), weight_, bias_);
}

}  // namespace retort::nn
