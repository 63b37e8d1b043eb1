// An embedder's program: tensors, a model of its own making and a custom op with its own backward,
// written against the installed headers alone.
#include <cmath>
#include <cstdio>

#include "engine/autograd/autograd.h"
#include "engine/tensor/tensor.h"

using retort::Tensor;

namespace {

// softplus(x) = log(1 + e^x); its derivative is the logistic function.
Tensor softplus(const Tensor& x) {
  Tensor y = Tensor::empty(x.shape());
  for (std::int64_t i = 0; i < x.numel(); ++i)
    y.data<float>()[i] = std::log1p(std::exp(x.data<float>()[i]));
  return retort::record("softplus", y, {x}, [x = x.detach()](const Tensor& dy) {
    Tensor dx = Tensor::empty(x.shape());
    for (std::int64_t i = 0; i < x.numel(); ++i)
      dx.data<float>()[i] = dy.data<float>()[i] / (1 + std::exp(-x.data<float>()[i]));
    return std::vector<Tensor>{dx};
  });
}

}  // namespace

int main() {
  Tensor x = Tensor::from<float>({-1, 0, 2}, {3});
  x.set_requires_grad(true);
  const Tensor y = softplus(x);
  y.backward(Tensor::full({3}, 1));
  const auto gradient = x.grad().to_vector<float>();
  std::printf("softplus'(0) = %.3f\n", static_cast<double>(gradient[1]));
  return std::abs(gradient[1] - 0.5f) < 1e-6f ? 0 : 1;
}
