#include "nn/models/transformer/parts.h"

#include "engine/ops/cast.h"
#include "engine/ops/linear.h"

namespace retort::nn {

Branch& Branch::at(const std::string& path) {
  const std::size_t dot = path.find('.');
  const std::string name = path.substr(0, dot);
  Branch*& child = branches_[name];
  if (child == nullptr) child = &add_module(name, std::make_shared<Branch>());
  return dot == std::string::npos ? *child : child->at(path.substr(dot + 1));
}

Tensor Affine::operator()(const Tensor& x, kernels::Activation f) const {
  return linear(x, cast(*weight, x.dtype()), bias == nullptr ? Tensor() : cast(*bias, x.dtype()),
                f);
}

Affine add_linear(Branch& branch, std::int64_t in, std::int64_t out, double deviation) {
  const Tensor& weight = branch.add_parameter("weight", {out, in}, Init::normal(deviation));
  const Tensor& bias = branch.add_parameter("bias", {out}, Init::constant(0));
  return {&weight, &bias};
}

Affine add_norm(Branch& branch, std::int64_t width) {
  const Tensor& weight = branch.add_parameter("weight", {width}, Init::constant(1));
  const Tensor& bias = branch.add_parameter("bias", {width}, Init::constant(0));
  return {&weight, &bias};
}

const Tensor& add_table(Branch& branch, std::int64_t rows, std::int64_t width, double deviation) {
  return branch.add_parameter("weight", {rows, width}, Init::normal(deviation));
}

}  // namespace retort::nn
