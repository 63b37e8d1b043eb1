#include "nn/layers/batch_norm.h"

#include <cmath>

#include "engine/ops/batch_norm.h"
#include "nn/slice_statistics.h"

namespace retort::nn {
namespace {

thread_local BatchNormWatch* watch = nullptr;

}  // namespace

BatchNormWatch::BatchNormWatch() {
  RETORT_CHECK(watch == nullptr, "[batch_norm] expected one watch at a time");
  watch = this;
}
BatchNormWatch::~BatchNormWatch() { watch = nullptr; }

BatchNorm::BatchNorm(std::int64_t channels)
    : weight_(add_parameter("weight", {channels}, Init::constant(1))),
      bias_(add_parameter("bias", {channels}, Init::constant(0))),
      running_mean_(add_buffer("running_mean", Tensor::zeros({channels}))),
      running_var_(add_buffer("running_var", Tensor::full({channels}, 1))) {}

Tensor BatchNorm::forward(const Tensor& x, bool relu, const Tensor& residual,
                          const ChannelStatistics& statistics) const {
  BatchNormOptions options;
  options.training = training();
  options.relu = relu;
  if (!options.training)
    return batch_norm(x, weight_, bias_, running_mean_, running_var_, options, residual);
  const std::int64_t values = x.numel() / x.dim(-1);
  RETORT_CHECK(values != 1,
               "[batch_norm] one value of each channel has no variance: expected more samples, or "
               "larger images, in training");
  if (watch != nullptr) watch->seen_.push_back({running_var_, values});
  const StatisticsPlace mean = statistics_place(running_mean_, options.momentum),
                        var = statistics_place(running_var_, options.momentum);
  options.momentum = mean.momentum;
  return batch_norm(x, weight_, bias_, mean.values, var.values, options, residual, statistics);
}

BatchNorm::Affine BatchNorm::affine() const {
  const std::vector<double> weight = weight_.to_vector<double>(), bias = bias_.to_vector<double>(),
                            mean = running_mean_.to_vector<double>(),
                            var = running_var_.to_vector<double>();
  Affine a{weight, bias};
  for (std::size_t c = 0; c < weight.size(); ++c) {
    a.scale[c] = weight[c] / std::sqrt(var[c] + BatchNormOptions{}.epsilon);
    a.shift[c] = bias[c] - mean[c] * a.scale[c];
  }
  return a;
}

void BatchNorm::keep_shift_alone() {
  const std::vector<double> shift = affine().shift;
  const auto set = [&](Tensor& to, const std::vector<double>& values) {
    to.detach().copy_from(Tensor::from(values, to.shape()));
  };
  set(bias_, shift);
  const std::size_t channels = shift.size();
  set(weight_, std::vector<double>(channels, 1));
  set(running_mean_, std::vector<double>(channels, 0));
  set(running_var_, std::vector<double>(channels, 1 - BatchNormOptions{}.epsilon));
}

}  // namespace retort::nn
