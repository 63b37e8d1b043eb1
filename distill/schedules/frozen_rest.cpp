#include "distill/schedules/frozen_rest.h"

#include "engine/autograd/autograd.h"

namespace retort::distill {

FrozenRest::FrozenRest(nn::Module& module, std::span<const Tensor> losses) {
  std::unordered_set<const Tensor::Autograd*> reached;
  for (const Tensor& loss : losses) reached.merge(leaves_of(loss));
  module.visit_parameters([&](const std::string&, Tensor& parameter) {
    if (!parameter.requires_grad() || reached.contains(parameter.autograd().get())) return;
    parameter.set_requires_grad(false);
    parameters_.push_back(&parameter);
  });
}

FrozenRest::~FrozenRest() {
  for (Tensor* const parameter : parameters_) parameter->set_requires_grad(true);
}

}  // namespace retort::distill
