// What transformers are put together from: a tree of names, linear maps, norms.
#pragma once
#include <map>
#include <string>

#include "kernels/common/activation.h"
#include "nn/module.h"

namespace retort::nn {

/// A knot of a tree of names: parameters get the paths that Hugging Face's files have.
class Branch : public Module {
 public:
  using Module::add_parameter;
  /// The knot at a path with dots, made where there is none.
  Branch& at(const std::string& path);

 private:
  std::map<std::string, Branch*> branches_;
};

/// Handles of a linear map's, a norm's or an embedding's parameters, which the tree holds: they
/// stay, and are views of an optimizer's arena from its construction on.
struct Affine {
  const Tensor* weight = nullptr;
  const Tensor* bias = nullptr;

  /// f(x weight^T + bias); x (N, in) -> (N, out), in x's dtype: bf16 rounds the parameters.
  Tensor operator()(const Tensor& x, kernels::Activation f = kernels::Activation::kNone) const;
};

/// weight (out, in) from N(0, deviation^2), bias (out) 0: BERT's initialisation.
Affine add_linear(Branch& branch, std::int64_t in, std::int64_t out, double deviation);
/// weight (width) 1, bias (width) 0.
Affine add_norm(Branch& branch, std::int64_t width);
/// weight (rows, width) from N(0, deviation^2).
const Tensor& add_table(Branch& branch, std::int64_t rows, std::int64_t width, double deviation);

}  // namespace retort::nn
