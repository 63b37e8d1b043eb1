// A convolution and the batch norm behind it, as one step.
#pragma once
#include <memory>
#include <mutex>
#include <vector>

#include "nn/layers/batch_norm.h"
#include "nn/layers/conv2d.h"

namespace retort::nn {

/// y = [relu](bn(conv(x)) [+ residual]) of two layers that live elsewhere in a model.
///
/// In training the convolution hands the batch norm its statistics, so that y is not read for them.
///
/// Note [Folding]
///   In evaluation mode a batch norm is scale * y + shift. fold(true) lets forward passes without
///   gradients use a copy of the convolution's weights times the scale, and the shift as a bias
///   inside the convolution: the same function up to rounding, with no pass of its own. The copy is
///   made at the first such pass, per dtype of x; whoever folds may not change the layers
///   afterwards. A pass in training mode drops the copies. fold_for_good() changes the layers
///   themselves instead, so that no second copy of the weights is needed in their own dtype.
///
/// Threads   forward in evaluation mode may be called from several at once.
class ConvNorm {
 public:
  ConvNorm(const Conv2d& conv, BatchNorm& norm) : conv_(conv), norm_(norm) {}
  Tensor forward(const Tensor& x, bool relu, const Tensor& residual = {}) const;
  void fold(bool on);
  void fold_for_good();

 private:
  struct Folded {
    Tensor weight, bias;
  };
  std::shared_ptr<const Folded> folded(const Tensor& x) const;

  const Conv2d& conv_;
  BatchNorm& norm_;
  bool fold_ = false;
  mutable std::mutex mutex_;                                   // of what follows
  mutable std::vector<std::shared_ptr<const Folded>> copies_;  // one per dtype and device met
};

}  // namespace retort::nn
