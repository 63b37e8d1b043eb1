#include "nn/layers/conv_norm.h"

#include "engine/autograd/autograd.h"

namespace retort::nn {

Tensor ConvNorm::forward(const Tensor& x, bool relu, const Tensor& residual) const {
  if (norm_.training()) {
    if (fold_) {
      const std::lock_guard lock(mutex_);
      copies_.clear();
    }
    ChannelStatistics statistics;
    const Tensor y = conv_.forward(x, &statistics);
    return norm_.forward(y, relu, residual, statistics);
  }
  if (!fold_ || grad_enabled()) return norm_.forward(conv_.forward(x), relu, residual);
  const std::shared_ptr<const Folded> f = folded(x);
  return conv2d_inference(x, f->weight, f->bias, conv_.options(), relu, residual);
}

void ConvNorm::fold(bool on) {
  const std::lock_guard lock(mutex_);
  fold_ = on;
  copies_.clear();
}

std::shared_ptr<const ConvNorm::Folded> ConvNorm::folded(const Tensor& x) const {
  const std::lock_guard lock(mutex_);
  for (const auto& copy : copies_)
    if (copy->weight.dtype() == x.dtype() && copy->weight.device() == x.device()) return copy;
  const BatchNorm::Affine affine = norm_.affine();
  const Tensor& weight = conv_.weight();  // (K, R, S, C)
  std::vector<double> values = weight.to_vector<double>();
  const std::size_t per_filter = values.size() / affine.scale.size();
  for (std::size_t i = 0; i < values.size(); ++i) values[i] *= affine.scale[i / per_filter];
  const DType bias_dtype = x.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  Folded made{Tensor::from(values, weight.shape()).to(x.dtype()).to(x.device()),
              Tensor::from(affine.shift, {weight.dim(0)}).to(bias_dtype).to(x.device())};
  copies_.push_back(std::make_shared<const Folded>(std::move(made)));
  return copies_.back();
}

}  // namespace retort::nn
