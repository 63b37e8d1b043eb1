// Layer normalisation, alone and fused with a residual add and dropout, and its gradients.
#include <cmath>
#include <memory>

#include "bench/cases/cases.h"
#include "bench/cases/inputs.h"
#include "bench/harness/session.h"
#include "engine/autograd/autograd.h"
#include "engine/ops/layer_norm.h"
#include "kernels/layer_norm/layer_norm.h"

namespace retort::bench {
namespace {

struct Size {
  std::int64_t rows, channels;
};
struct Kind {
  const char* name;  // what follows layer_norm
  bool residual, forward, backward;
  double p, touches;  // arrays of (rows, channels) read and written
};

struct Buffers {
  Size size;
  Kind kind;
  DType dtype;
  Tensor x, residual, dy, weight, bias, y, sum, mean, rstd, ds, dx, dweight, dbias;

  Buffers(const Size& s, const Kind& k, DType t, Device device, std::uint64_t seed)
      : size(s), kind(k), dtype(t) {
    const DType wide = t == DType::kF64 ? DType::kF64 : DType::kF32;
    const auto like = [&] { return Tensor::empty({s.rows, s.channels}, t, device); };
    const auto numbers = [&](std::int64_t n) { return Tensor::empty({n}, wide, device); };
    x = normal({s.rows, s.channels}, seed, t, device);
    residual = normal({s.rows, s.channels}, seed + 1, t, device);
    dy = normal({s.rows, s.channels}, seed + 2, t, device);
    weight = normal({s.channels}, seed + 3, wide, device, 0.2, 1);
    bias = normal({s.channels}, seed + 4, wide, device);
    y = like(), ds = like(), mean = numbers(s.rows), rstd = numbers(s.rows);
    sum = k.residual ? like() : x;
    if (k.p > 0) dx = like();
    dweight = numbers(s.channels), dbias = numbers(s.channels);
  }
  kernels::DropoutArgs drop() const {
    kernels::DropoutArgs d{};
    d.columns = size.channels, d.p = kind.p, d.seed = 5, d.path = path_hash("bench");
    return d;
  }
  void forward(const Context& context) const {
    kernels::layer_norm(
        context, {y.raw(), kind.residual ? sum.raw() : nullptr, mean.raw(), rstd.raw(), x.raw(),
                  kind.residual ? residual.raw() : nullptr, weight.raw(), bias.raw(), size.rows,
                  size.channels, size.channels, size.channels, 1e-5, dtype, drop()});
  }
  void backward(const Context& context) const {
    kernels::layer_norm_backward(
        context, {ds.raw(), kind.p > 0 ? dx.raw() : nullptr, dweight.raw(), dbias.raw(), dy.raw(),
                  sum.raw(), mean.raw(), rstd.raw(), weight.raw(), size.rows, size.channels,
                  size.channels, size.channels, false, dtype, drop()});
  }
};

// Against the same op in double on the CPU.
double error_of(const Buffers& b) {
  const auto wide = [](const Tensor& t) { return t.to(Device::kCpu).to(DType::kF64); };
  Buffers want(b.size, b.kind, DType::kF64, Device::kCpu, 1);
  want.x = wide(b.x), want.residual = wide(b.residual), want.dy = wide(b.dy);
  want.weight = wide(b.weight), want.bias = wide(b.bias);
  if (!b.kind.residual) want.sum = want.x;
  want.forward(context_of(Device::kCpu));
  want.backward(context_of(Device::kCpu));
  double worst = 0;
  const auto compare = [&](const Tensor& got, const Tensor& exact) {
    const Host g(got), w(exact);
    Error64 e;
    for (const std::int64_t i : sampled(got.numel(), 20000))
      e.add(g[static_cast<std::size_t>(i)], w[static_cast<std::size_t>(i)]);
    worst = worse(worst, e.value());
  };
  if (b.kind.forward) {
    compare(b.y, want.y);
    compare(b.mean, want.mean);
    compare(b.rstd, want.rstd);
    if (b.kind.residual) compare(b.sum, want.sum);
  }
  if (b.kind.backward) {
    compare(b.ds, want.ds);
    compare(b.dweight, want.dweight);
    compare(b.dbias, want.dbias);
    if (b.kind.p > 0) compare(b.dx, want.dx);
  }
  return worst;
}

Work make(const Size& s, const Kind& k, const Case& c) {
  const auto b = std::make_shared<const Buffers>(s, k, c.dtype, c.device, c.seed);
  if (!k.forward) b->forward(context_of(c.device));
  Work w;
  w.run = [=] {
    if (k.forward) b->forward(kernel_context(c.device));
    if (k.backward) b->backward(kernel_context(c.device));
  };
  if (!k.backward && k.p == 0)
    w.composed = [=] {
      const NoGrad no_grad;
      static_cast<void>(k.residual
                            ? layer_norm_residual_composed(b->x, b->residual, b->weight, b->bias)
                            : layer_norm_composed(b->x, b->weight, b->bias));
    };
  w.outputs = [=] {
    std::vector<Tensor> all;
    if (k.forward) all = {b->y, b->mean, b->rstd};
    if (k.forward && k.residual) all.push_back(b->sum);
    if (k.backward) all.insert(all.end(), {b->ds, b->dweight, b->dbias});
    if (k.backward && k.p > 0) all.push_back(b->dx);
    return all;
  };
  w.error = [=] { return error_of(*b); };
  w.digest = [=] {
    std::vector<double> norms;
    if (k.forward) norms.push_back(norm_of(b->y));
    if (k.backward)
      for (const Tensor& t : {b->ds, b->dweight, b->dbias}) norms.push_back(norm_of(t));
    return norms;
  };
  w.exports = [=] {
    NamedTensors all{{"x", b->x.to(Device::kCpu)},
                     {"weight", b->weight.to(Device::kCpu)},
                     {"bias", b->bias.to(Device::kCpu)}};
    if (k.residual) all.emplace_back("residual", b->residual.to(Device::kCpu));
    if (k.backward) all.emplace_back("dy", b->dy.to(Device::kCpu));
    return all;
  };
  return w;
}

}  // namespace

void add_layer_norm_cases(Plan& plan) {
  const auto sizes =
      plan.pick<std::vector<Size>>({{70, 40}}, {{2048, 768}, {768, 384}}, {{32768, 768}});
  const Kind kinds[] = {{"", false, true, false, 0, 2},
                        {"_residual", true, true, false, 0, 4},
                        {"_residual_dropout", true, true, false, 0.1, 4},
                        {"_backward", false, false, true, 0, 3},
                        {"_residual_dropout_backward", true, false, true, 0.1, 4},
                        {"_residual_both", true, true, true, 0, 7}};
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const Size& s : sizes)
      for (const Kind& k : kinds) {
        Case c;
        c.name = std::string("layer_norm") + k.name + "/" + shape_name(s.rows, s.channels);
        c.dtype = dtype;
        c.bytes = k.touches * static_cast<double>(s.rows * s.channels) *
                  static_cast<double>(size_of(dtype));
        c.working_set = c.bytes * 7 / k.touches;
        c.goal =
            !plan.smoke && plan.device == Device::kCuda && dtype == DType::kBF16 && !k.residual;
        c.make = [=](const Case& me) { return make(s, k, me); };
        plan.add(std::move(c));
      }
}

}  // namespace retort::bench
