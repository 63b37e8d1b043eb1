// Matrix products: the three passes of fully connected layers (y = x W^T, dx = dy W, dW = dy^T x).
#include <memory>

#include "bench/cases/cases.h"
#include "bench/cases/inputs.h"
#include "bench/harness/session.h"
#include "engine/autograd/autograd.h"
#include "engine/ops/bias.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/matmul.h"
#include "kernels/gemm/gemm.h"

namespace retort::bench {
namespace {

struct Product {
  std::int64_t m, n, k;
  bool transpose_a, transpose_b, bias;
  kernels::Activation activation = kernels::Activation::kNone;
};

Work make(const Product& p, const Case& c) {
  const Tensor a = normal(p.transpose_a ? Shape{p.k, p.m} : Shape{p.m, p.k}, c.seed, c.dtype,
                          c.device),
               b = normal(p.transpose_b ? Shape{p.n, p.k} : Shape{p.k, p.n}, c.seed + 1, c.dtype,
                          c.device),
               bias = normal({p.n}, c.seed + 2, c.dtype, c.device),
               y = Tensor::empty({p.m, p.n}, c.dtype, c.device);
  Work w;
  w.run = [=] {
    kernels::GemmArgs g{y.raw(), a.raw(), b.raw(), p.m, p.n, p.k, a.dim(1), b.dim(1), p.n};
    g.transpose_a = p.transpose_a, g.transpose_b = p.transpose_b;
    g.dtype = c.dtype;
    if (p.bias) g.bias = bias.raw();
    g.activation = p.activation;
    kernels::gemm(kernel_context(c.device), g);
  };
  if (p.bias)
    w.composed = [=] {
      const NoGrad no_grad;
      const Tensor y = add_bias(matmul(a, b, p.transpose_a, p.transpose_b), bias);
      if (p.activation == kernels::Activation::kRelu) static_cast<void>(relu(y));
      if (p.activation == kernels::Activation::kGelu) static_cast<void>(gelu(y));
    };
  w.outputs = [=] { return std::vector<Tensor>{y}; };
  w.error = [=] {  // 400 elements, each a dot product in double
    const auto va = Host(a), vb = Host(b), vc = Host(bias), got = Host(y);
    Error64 e;
    for (const std::int64_t i : sampled(p.m, 20))
      for (const std::int64_t j : sampled(p.n, 20, 1)) {
        double sum = p.bias ? vc[static_cast<std::size_t>(j)] : 0;
        for (std::int64_t k = 0; k < p.k; ++k)
          sum += va[static_cast<std::size_t>(p.transpose_a ? k * p.m + i : i * p.k + k)] *
                 vb[static_cast<std::size_t>(p.transpose_b ? j * p.k + k : k * p.n + j)];
        kernels::dispatch_activation(p.activation, [&]<kernels::Activation kF>() {
          e.add(got[static_cast<std::size_t>(i * p.n + j)], kernels::activate<kF>(sum));
        });
      }
    return e.value();
  };
  w.digest = [=] { return std::vector<double>{norm_of(y)}; };
  w.exports = [=] {
    return NamedTensors{
        {"a", a.to(Device::kCpu)}, {"b", b.to(Device::kCpu)}, {"bias", bias.to(Device::kCpu)}};
  };
  return w;
}

void add(Plan& plan, const std::string& name, const Product& p, DType dtype) {
  Case c;
  c.name = "gemm/" + name + "/" + shape_name(p.m, p.n, p.k);
  c.dtype = dtype;
  c.matrix = true;
  c.flops = 2.0 * static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k);
  c.bytes = c.working_set =
      static_cast<double>(p.m * p.k + p.k * p.n + p.m * p.n) * static_cast<double>(size_of(dtype));
  c.make = [p](const Case& made) { return make(p, made); };
  plan.add(std::move(c));
}

}  // namespace

void add_gemm_cases(Plan& plan) {
  struct Layer {
    std::int64_t rows, in, out;
  };
  // The parity network's hidden layer at two batches; BERT-base's square layer and its projection
  // to the vocabulary of masked positions.
  const std::vector<Layer> layers = plan.pick<std::vector<Layer>>(
      {{5, 7, 9}}, {{32, 100, 1000}, {1024, 100, 1000}, {4096, 768, 768}, {614, 768, 28996}},
      {{1024, 100, 1000}, {32768, 768, 768}, {4096, 768, 30522}});
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const Layer& l : layers) {
      add(plan, "nt_bias", {l.rows, l.out, l.in, false, true, true}, dtype);
      for (const auto f : {kernels::Activation::kRelu, kernels::Activation::kGelu})
        add(plan, std::string("nt_bias_") + name_of(f), {l.rows, l.out, l.in, false, true, true, f},
            dtype);
      add(plan, "nn", {l.rows, l.in, l.out, false, false, false}, dtype);
      add(plan, "tn", {l.out, l.in, l.rows, true, false, false}, dtype);
    }
}

}  // namespace retort::bench
