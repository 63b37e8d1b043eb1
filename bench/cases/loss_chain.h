// The distillation loss as its users write it: a chain of plain ops on whole batches, nothing made
// on the host. What the fused kernel is timed beside.
#pragma once
#include "engine/tensor/tensor.h"
#include "kernels/distill_loss/distill_loss.h"

namespace retort::bench {

struct LossChain {
  Tensor student, teacher;  // (N, V) logits. No teacher: cross entropy alone
  Tensor one_hot;           // (N, V), the labels
  kernels::Divergence divergence = kernels::Divergence::kForwardKl;
  double tau = 1, lambda = 0.5;
};

/// Labels as rows of 0 with a 1, of `like`'s shape, dtype and device.
Tensor one_hot_rows(const Tensor& targets, const Tensor& like);

/// mean over the rows of (1 - lambda) CE + lambda tau^n D(p, q); differentiable.
Tensor loss_chain(const LossChain& c);

}  // namespace retort::bench
