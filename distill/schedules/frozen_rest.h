// Parameters that a loss does not reach, out of the optimizer's way.
#pragma once
#include <span>
#include <vector>

#include "nn/module.h"

namespace retort::distill {

/// While one lives, the parameters of the module that backward() of no loss reaches require
/// no gradient: an optimizer made meanwhile leaves them out, so that neither weight decay nor
/// momentum moves them. Those that required none before stay as they are. The module is kept alive
/// by the caller.
class FrozenRest {
 public:
  FrozenRest(nn::Module& module, std::span<const Tensor> losses);
  FrozenRest(nn::Module& module, const Tensor& loss) : FrozenRest(module, std::span(&loss, 1)) {}
  ~FrozenRest();
  FrozenRest(const FrozenRest&) = delete;
  FrozenRest& operator=(const FrozenRest&) = delete;

 private:
  std::vector<Tensor*> parameters_;  // handles inside the module
};

}  // namespace retort::distill
