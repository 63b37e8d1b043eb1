#include "nn/layers/conv_norm.h"

#include <algorithm>
#include <cmath>

#include "engine/autograd/autograd.h"

namespace retort::nn {
namespace {

// As BatchNorm::keep_shift_alone leaves a scale: 1 up to the rounding of 1 - epsilon.
bool is_one(double scale) { return std::abs(scale - 1) < 1e-7; }

// Filter k of the weights (K, R, S, C) times scale[k]; products in double, on the host.
Tensor scaled(const Tensor& weight, const std::vector<double>& scale) {
  std::vector<double> values = weight.to_vector<double>();
  const std::size_t per_filter = values.size() / scale.size();
  for (std::size_t i = 0; i < values.size(); ++i) values[i] *= scale[i / per_filter];
  return Tensor::from(values, weight.shape());
}

}  // namespace

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

void ConvNorm::fold_for_good() {
  const Tensor weight = conv_.weight().detach();  // (K, R, S, C)
  weight.copy_from(scaled(weight, norm_.affine().scale));
  norm_.keep_shift_alone();
  fold(true);
}

std::shared_ptr<const ConvNorm::Folded> ConvNorm::folded(const Tensor& x) const {
  const std::lock_guard lock(mutex_);
  for (const auto& copy : copies_)
    if (copy->weight.dtype() == x.dtype() && copy->weight.device() == x.device()) return copy;
  const BatchNorm::Affine affine = norm_.affine();
  const Tensor weight = conv_.weight().detach();  // (K, R, S, C)
  const bool scales = !std::all_of(affine.scale.begin(), affine.scale.end(), is_one);
  const DType bias_dtype = x.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  Folded made{(scales ? scaled(weight, affine.scale) : weight).to(x.dtype()).to(x.device()),
              Tensor::from(affine.shift, {weight.dim(0)}).to(bias_dtype).to(x.device())};
  copies_.push_back(std::make_shared<const Folded>(std::move(made)));
  return copies_.back();
}

}  // namespace retort::nn
