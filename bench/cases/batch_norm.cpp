// Batch norm with ReLU: in training from x alone and from a convolution's statistics, and in
// evaluation; with and without a residual; and its backward.
#include <memory>
#include <utility>

#include "bench/cases/cases.h"
#include "bench/cases/inputs.h"
#include "bench/harness/session.h"
#include "engine/autograd/autograd.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "engine/runtime/device.h"
#include "kernels/batch_norm/batch_norm_composed.h"
#include "kernels/conv2d/conv2d.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/reduce/reduce.h"

namespace retort::bench {
namespace {

constexpr double kEpsilon = 1e-5;

// Where mean and variance come from: a pass over x, the convolution that made x, or before.
enum class Moments { kOwn, kConv2d, kRunning };

// x as (N, side, side, C), which a convolution's chunks depend on.
struct Sizes {
  std::int64_t batch, side, channels;
  std::int64_t rows() const { return batch * side * side; }
};

struct Norm {
  Tensor x, residual, y, weight, bias, mean, rstd;
  Tensor running_mean, running_var, statistics;
  std::int64_t statistics_rows = 0;
  Tensor dy, dx, dresidual, dweight, dbias;
};

// x is the result of a 1 x 1 convolution that leaves its statistics.
void convolve(Norm& t, const Sizes& s, const Case& c) {
  const kernels::Conv2dShape shape{s.batch, s.side, s.side, s.channels, s.channels, 1, 1, 1, 0};
  const kernels::Conv2dChunks chunks = kernels::conv2d_statistics_chunks(shape, c.device);
  const Tensor before = t.x,
               weight = normal({s.channels, s.channels}, c.seed + 5, DType::kF32, c.device,
                               1 / std::sqrt(static_cast<double>(s.channels)));
  t.x = Tensor::empty(before.shape(), c.dtype, c.device);
  t.statistics = Tensor::empty({chunks.count, 2, s.channels}, DType::kF32, c.device);
  t.statistics_rows = chunks.rows;
  kernels::Conv2dArgs a{t.x.raw(), before.raw(), weight.raw(), shape, c.dtype, DType::kF32};
  a.statistics = t.statistics.raw();
  kernels::conv2d(context_of(c.device), a);
  synchronize(c.device);  // before its input goes
}

Norm make_norm(const Sizes& s, bool residual, Moments from, const Case& c) {
  const std::int64_t rows = s.rows(), channels = s.channels;
  Norm t;
  t.x = normal({rows, channels}, c.seed, c.dtype, c.device, 1, 0.5);
  if (residual) t.residual = normal({rows, channels}, c.seed + 1, c.dtype, c.device);
  t.y = Tensor::empty({rows, channels}, c.dtype, c.device);
  t.weight = normal({channels}, c.seed + 2, DType::kF32, c.device, 0.1, 1);
  t.bias = normal({channels}, c.seed + 3, DType::kF32, c.device, 0.1);
  t.mean = Tensor::empty({channels}, DType::kF32, c.device);
  t.rstd = Tensor::empty({channels}, DType::kF32, c.device);
  if (from == Moments::kConv2d) convolve(t, s, c);
  if (from == Moments::kRunning) {
    t.running_mean = normal({channels}, c.seed + 6, DType::kF32, c.device, 0.1, 0.5);
    t.running_var = normal({channels}, c.seed + 7, DType::kF32, c.device, 0.1, 1);
  }
  return t;
}

void forward(const Context& context, const Norm& t, DType dtype) {
  kernels::BatchNormArgs a{};
  a.x = t.x.raw(), a.y = t.y.raw();
  if (t.residual.defined()) a.residual = t.residual.raw();
  a.weight = t.weight.raw(), a.bias = t.bias.raw(), a.mean = t.mean.raw(), a.rstd = t.rstd.raw();
  a.rows = t.x.dim(0), a.channels = t.x.dim(1);
  a.momentum = 0.1, a.epsilon = kEpsilon, a.training = true, a.relu = true, a.dtype = dtype;
  if (t.statistics.defined())
    a.statistics = t.statistics.raw(), a.statistics_rows = t.statistics_rows;
  if (t.running_mean.defined()) {
    a.training = false;
    a.running_mean = t.running_mean.raw(), a.running_var = t.running_var.raw();
  }
  kernels::batch_norm(context, a);
}

// Channel k by the definition, from x.
kernels::BatchNormChannel channel_of(const Host& x, std::int64_t rows, std::int64_t channels,
                                     std::int64_t k, double weight, double bias) {
  const auto at = [&](std::int64_t r) { return x[static_cast<std::size_t>(r * channels + k)]; };
  return kernels::batch_norm_composed(rows, at, weight, bias, kEpsilon);
}

// Repeats a vector over the channels for all rows: what a chain of plain ops needs.
Tensor spread(const Tensor& v, const Norm& t) {
  const Tensor wide = Tensor::empty(t.x.shape(), t.x.dtype(), t.x.device());
  const Tensor narrow = v.to(t.x.dtype());
  kernels::expand(context_of(t.x.device()), {kernels::Sum::kColumns, wide.raw(), narrow.raw(),
                                             t.x.dim(0), t.x.dim(1), 1, t.x.dtype()});
  return wide;
}

// Mean and variance as a chain of plain ops has them: (C) each, of x's dtype.
std::pair<Tensor, Tensor> moments_of(const Norm& t) {
  const double n = static_cast<double>(t.x.dim(0));
  const Tensor mean = scale(column_sum(t.x), 1 / n);
  return {mean, scale(column_sum(square(subtract(t.x, spread(mean, t)))), 1 / n)};
}

Work make_batch_norm(const Sizes& s, bool residual, Moments from, const Case& c) {
  const std::int64_t rows = s.rows(), channels = s.channels;
  const Norm t = make_norm(s, residual, from, c);
  Work w;
  w.run = [=] { forward(kernel_context(c.device), t, c.dtype); };
  w.composed = [=] {
    const NoGrad no_grad;
    const auto [mean, var] =
        from == Moments::kRunning ? std::pair{t.running_mean, t.running_var} : moments_of(t);
    const Tensor rstd =
        divide(Tensor::full({channels}, 1, var.dtype(), c.device), sqrt(add_scalar(var, kEpsilon)));
    Tensor y = add(
        multiply(multiply(subtract(t.x, spread(mean, t)), spread(rstd, t)), spread(t.weight, t)),
        spread(t.bias, t));
    if (residual) y = add(y, t.residual);
    static_cast<void>(relu(y));
  };
  w.outputs = [=] { return std::vector<Tensor>{t.y, t.mean, t.rstd}; };
  w.error = [=] {  // 4 channels, 1000 rows of each
    const auto x = Host(t.x), got = Host(t.y), gamma = Host(t.weight), beta = Host(t.bias),
               add = residual ? Host(t.residual) : Host();
    const auto mean = Host(t.mean), rstd = Host(t.rstd),
               before = from == Moments::kRunning ? Host(t.running_mean) : Host(),
               var = from == Moments::kRunning ? Host(t.running_var) : Host();
    Error64 e, em, er;
    for (const std::int64_t k : sampled(channels, 4)) {
      const auto kk = static_cast<std::size_t>(k);
      const kernels::BatchNormChannel m =
          from == Moments::kRunning
              ? kernels::BatchNormChannel{before[kk], var[kk], kEpsilon, gamma[kk], beta[kk]}
              : channel_of(x, rows, channels, k, gamma[kk], beta[kk]);
      for (const std::int64_t r : sampled(rows, 1000)) {
        const auto i = static_cast<std::size_t>(r * channels + k);
        e.add(got[i], m.value(x[i], residual ? add[i] : 0, true));
      }
      em.add(mean[kk], m.mean);
      er.add(rstd[kk], m.rstd());
    }
    return worse(e.value(), worse(em.value(), er.value()));
  };
  if (from != Moments::kOwn) return w;
  w.digest = [=] { return std::vector<double>{norm_of(t.y)}; };
  w.exports = [=] {
    NamedTensors all{{"x", t.x.to(Device::kCpu).to(DType::kF32)},
                     {"weight", t.weight.to(Device::kCpu)},
                     {"bias", t.bias.to(Device::kCpu)}};
    if (residual) all.emplace_back("residual", t.residual.to(Device::kCpu).to(DType::kF32));
    return all;
  };
  return w;
}

Work make_batch_norm_backward(const Sizes& s, bool residual, const Case& c) {
  const std::int64_t rows = s.rows(), channels = s.channels;
  Norm t = make_norm(s, residual, Moments::kOwn, c);
  t.dy = normal({rows, channels}, c.seed + 4, c.dtype, c.device);
  t.dx = Tensor::empty({rows, channels}, c.dtype, c.device);
  t.dweight = Tensor::empty({channels}, DType::kF32, c.device);
  t.dbias = Tensor::empty({channels}, DType::kF32, c.device);
  if (residual) t.dresidual = Tensor::empty({rows, channels}, c.dtype, c.device);
  forward(context_of(c.device), t, c.dtype);
  Work w;
  w.run = [=] {
    kernels::BatchNormBackwardArgs a{};
    a.dy = t.dy.raw(), a.x = t.x.raw(), a.weight = t.weight.raw(), a.bias = t.bias.raw();
    a.mean = t.mean.raw(), a.rstd = t.rstd.raw(), a.dx = t.dx.raw();
    if (residual) a.y = t.y.raw(), a.dresidual = t.dresidual.raw();
    a.dweight = t.dweight.raw(), a.dbias = t.dbias.raw();
    a.rows = rows, a.channels = channels, a.training = true, a.relu = true, a.dtype = c.dtype;
    kernels::batch_norm_backward(kernel_context(c.device), a);
  };
  w.composed = [=] {
    const NoGrad no_grad;
    const double n = static_cast<double>(rows);
    const Tensor g = Tensor::empty(t.x.shape(), c.dtype, c.device);
    kernels::unary_backward(kernel_context(c.device), {kernels::Unary::kRelu, g.raw(), t.dy.raw(),
                                                       t.y.raw(), rows * channels, 1, c.dtype});
    const Tensor rstd = spread(t.rstd, t), xhat = multiply(subtract(t.x, spread(t.mean, t)), rstd),
                 dbias = column_sum(g), dweight = column_sum(multiply(g, xhat));
    const Tensor inner = subtract(subtract(g, spread(scale(dbias, 1 / n), t)),
                                  multiply(xhat, spread(scale(dweight, 1 / n), t)));
    static_cast<void>(multiply(multiply(rstd, spread(t.weight, t)), inner));
  };
  w.outputs = [=] {
    std::vector<Tensor> all{t.dx, t.dweight, t.dbias};
    if (residual) all.push_back(t.dresidual);
    return all;
  };
  w.error = [=] {
    const auto x = Host(t.x), dy = Host(t.dy), got = Host(t.dx), y = Host(t.y),
               gamma = Host(t.weight), dw = Host(t.dweight), db = Host(t.dbias);
    const Host passed = residual ? Host(t.dresidual) : Host();
    Error64 ex, ew, er;
    for (const std::int64_t k : sampled(channels, 4)) {
      const auto kk = static_cast<std::size_t>(k);
      const auto at = [&](std::int64_t r) { return static_cast<std::size_t>(r * channels + k); };
      const auto g = [&](std::int64_t r) { return y[at(r)] > 0 ? dy[at(r)] : 0; };
      const auto want = kernels::batch_norm_backward_composed(
          channel_of(x, rows, channels, k, gamma[kk], 0), rows,
          [&](std::int64_t r) { return x[at(r)]; }, g, true);
      // Of both sums' size: either may be near 0 by chance.
      ew.add(dw[kk], want.dweight);
      ew.add(db[kk], want.dbias);
      for (const std::int64_t r : sampled(rows, 1000)) {
        if (residual) er.add(passed[at(r)], g(r));
        ex.add(got[at(r)], want.dx(g(r), x[at(r)]));
      }
    }
    return worse(ex.value(), worse(ew.value(), er.value()));
  };
  w.digest = [=] {
    return std::vector<double>{norm_of(t.dx), norm_of(t.dweight), norm_of(t.dbias)};
  };
  w.exports = [=] {
    NamedTensors all{{"x", t.x.to(Device::kCpu).to(DType::kF32)},
                     {"dy", t.dy.to(Device::kCpu).to(DType::kF32)},
                     {"weight", t.weight.to(Device::kCpu)},
                     {"bias", t.bias.to(Device::kCpu)}};
    if (residual) all.emplace_back("residual", t.residual.to(Device::kCpu).to(DType::kF32));
    return all;
  };
  return w;
}

void add_batch_norm(Plan& plan, const Sizes& s, DType dtype) {
  const std::int64_t rows = s.rows(), channels = s.channels;
  for (const bool residual : {false, true}) {
    const std::string name = residual ? "_add_relu" : "_relu";
    const double elements = static_cast<double>(rows * channels),
                 n = elements * static_cast<double>(size_of(dtype));
    // Reads x once where it could stay in a cache; the formula counts each operand once.
    for (const auto& [kind, from] : {std::pair{"", Moments::kOwn},
                                     {"_statistics", Moments::kConv2d},
                                     {"_evaluation", Moments::kRunning}}) {
      const double moments = from == Moments::kOwn ? 4 : 0;  // operations an element
      plan.add(std::string("batch_norm") + kind + name + "/" + shape_name(rows, channels), dtype,
               (residual ? 3 : 2) * n, (moments + (residual ? 4 : 3)) * elements,
               [s, residual = residual, from = from](const Case& c) {
                 return make_batch_norm(s, residual, from, c);
               });
    }
    plan.add("batch_norm" + name + "_backward/" + shape_name(rows, channels), dtype,
             (residual ? 5 : 3) * n, 10 * elements,  // mask, xhat 2, sums 3, dx 4
             [=](const Case& c) { return make_batch_norm_backward(s, residual, c); });
  }
}

}  // namespace

void add_batch_norm_cases(Plan& plan) {
  const std::int64_t batch = plan.pick<std::int64_t>(2, 128, 1024);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    if (plan.smoke) {
      add_batch_norm(plan, {2, 8, 5}, dtype);
      continue;
    }
    // Stages of ResNet-20, -18 and -152.
    for (const auto& [side, channels] :
         {std::pair<std::int64_t, std::int64_t>{32, 16}, {32, 64}, {8, 256}, {4, 512}})
      add_batch_norm(plan, {batch, side, channels}, dtype);
  }
}

}  // namespace retort::bench
