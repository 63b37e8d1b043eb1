// Batch norm in training with ReLU, with and without a residual, and its backward.
#include <memory>

#include "bench/cases/cases.h"
#include "bench/cases/inputs.h"
#include "bench/harness/session.h"
#include "engine/autograd/autograd.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "engine/runtime/device.h"
#include "kernels/batch_norm/batch_norm.h"
#include "kernels/reduce/reduce.h"

namespace retort::bench {
namespace {

constexpr double kEpsilon = 1e-5;

struct Norm {
  Tensor x, residual, y, weight, bias, mean, rstd;
  Tensor dy, dx, dresidual, dweight, dbias;
};

Norm make_norm(std::int64_t rows, std::int64_t channels, bool residual, const Case& c) {
  Norm t;
  t.x = normal({rows, channels}, c.seed, c.dtype, c.device, 1, 0.5);
  if (residual) t.residual = normal({rows, channels}, c.seed + 1, c.dtype, c.device);
  t.y = Tensor::empty({rows, channels}, c.dtype, c.device);
  t.weight = normal({channels}, c.seed + 2, DType::kF32, c.device, 0.1, 1);
  t.bias = normal({channels}, c.seed + 3, DType::kF32, c.device, 0.1);
  t.mean = Tensor::empty({channels}, DType::kF32, c.device);
  t.rstd = Tensor::empty({channels}, DType::kF32, c.device);
  return t;
}

void forward(const Context& context, const Norm& t, DType dtype) {
  kernels::BatchNormArgs a{};
  a.x = t.x.raw(), a.y = t.y.raw();
  if (t.residual.defined()) a.residual = t.residual.raw();
  a.weight = t.weight.raw(), a.bias = t.bias.raw(), a.mean = t.mean.raw(), a.rstd = t.rstd.raw();
  a.rows = t.x.dim(0), a.channels = t.x.dim(1);
  a.momentum = 0.1, a.epsilon = kEpsilon, a.training = true, a.relu = true, a.dtype = dtype;
  kernels::batch_norm(context, a);
}

// One channel's statistics in double.
struct Moments {
  double mean = 0, rstd = 0;
  Moments(const Host& x, std::int64_t rows, std::int64_t channels, std::int64_t k) {
    const auto value = [&](std::int64_t r) {
      return x[static_cast<std::size_t>(r * channels + k)];
    };
    for (std::int64_t r = 0; r < rows; ++r) mean += value(r);
    mean /= static_cast<double>(rows);
    double square = 0;
    for (std::int64_t r = 0; r < rows; ++r) square += (value(r) - mean) * (value(r) - mean);
    rstd = 1 / std::sqrt(square / static_cast<double>(rows) + kEpsilon);
  }
};

// Repeats a vector over the channels for all rows: what a chain of plain ops needs.
Tensor spread(const Tensor& v, const Norm& t) {
  const Tensor wide = Tensor::empty(t.x.shape(), t.x.dtype(), t.x.device());
  const Tensor narrow = v.to(t.x.dtype());
  kernels::expand(context_of(t.x.device()), {kernels::Sum::kColumns, wide.raw(), narrow.raw(),
                                             t.x.dim(0), t.x.dim(1), 1, t.x.dtype()});
  return wide;
}

Work make_batch_norm(std::int64_t rows, std::int64_t channels, bool residual, const Case& c) {
  const Norm t = make_norm(rows, channels, residual, c);
  Work w;
  w.run = [=] { forward(kernel_context(c.device), t, c.dtype); };
  w.composed = [=] {
    const NoGrad no_grad;
    const double n = static_cast<double>(rows);
    const Tensor centred = subtract(t.x, spread(scale(column_sum(t.x), 1 / n), t));
    const Tensor var = scale(column_sum(square(centred)), 1 / n);
    const Tensor rstd =
        divide(Tensor::full({channels}, 1, var.dtype(), c.device), sqrt(add_scalar(var, kEpsilon)));
    Tensor y =
        add(multiply(multiply(centred, spread(rstd, t)), spread(t.weight, t)), spread(t.bias, t));
    if (residual) y = add(y, t.residual);
    static_cast<void>(relu(y));
  };
  w.outputs = [=] { return std::vector<Tensor>{t.y, t.mean, t.rstd}; };
  w.error = [=] {  // 4 channels, 1000 rows of each
    const auto x = Host(t.x), got = Host(t.y), gamma = Host(t.weight), beta = Host(t.bias),
               add = residual ? Host(t.residual) : Host();
    const Host mean(t.mean), rstd(t.rstd);
    Error64 e, em, er;
    for (const std::int64_t k : sampled(channels, 4)) {
      const Moments m(x, rows, channels, k);
      const auto kk = static_cast<std::size_t>(k);
      for (const std::int64_t r : sampled(rows, 1000)) {
        const auto i = static_cast<std::size_t>(r * channels + k);
        const double y = (x[i] - m.mean) * m.rstd * gamma[kk] + beta[kk] + (residual ? add[i] : 0);
        e.add(got[i], std::max(0.0, y));
      }
      em.add(mean[kk], m.mean);
      er.add(rstd[kk], m.rstd);
    }
    return worse(e.value(), worse(em.value(), er.value()));
  };
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

Work make_batch_norm_backward(std::int64_t rows, std::int64_t channels, bool residual,
                              const Case& c) {
  Norm t = make_norm(rows, channels, residual, c);
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
      const Moments m(x, rows, channels, k);
      const auto kk = static_cast<std::size_t>(k);
      double sum = 0, sum_xhat = 0;
      for (std::int64_t r = 0; r < rows; ++r) {
        const auto i = static_cast<std::size_t>(r * channels + k);
        const double g = y[i] > 0 ? dy[i] : 0;
        sum += g;
        sum_xhat += g * (x[i] - m.mean) * m.rstd;
      }
      // Of both sums' size: either may be near 0 by chance.
      ew.add(dw[kk], sum_xhat);
      ew.add(db[kk], sum);
      const double n = static_cast<double>(rows);
      for (const std::int64_t r : sampled(rows, 1000)) {
        const auto i = static_cast<std::size_t>(r * channels + k);
        const double g = y[i] > 0 ? dy[i] : 0, xhat = (x[i] - m.mean) * m.rstd;
        if (residual) er.add(passed[i], g);
        ex.add(got[i], gamma[kk] * m.rstd * (g - sum / n - xhat * sum_xhat / n));
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

void add_batch_norm(Plan& plan, std::int64_t rows, std::int64_t channels, DType dtype) {
  for (const bool residual : {false, true}) {
    const std::string name = residual ? "_add_relu" : "_relu";
    const double elements = static_cast<double>(rows * channels),
                 n = elements * static_cast<double>(size_of(dtype));
    // Reads x once where it could stay in a cache; the formula counts each operand once.
    plan.add("batch_norm" + name + "/" + shape_name(rows, channels), dtype, (residual ? 3 : 2) * n,
             (residual ? 8.0 : 7.0) * elements,  // 4 of them for the moments
             [=](const Case& c) { return make_batch_norm(rows, channels, residual, c); });
    plan.add("batch_norm" + name + "_backward/" + shape_name(rows, channels), dtype,
             (residual ? 5 : 3) * n, 10 * elements,  // mask, xhat 2, sums 3, dx 4
             [=](const Case& c) { return make_batch_norm_backward(rows, channels, residual, c); });
  }
}

}  // namespace

void add_batch_norm_cases(Plan& plan) {
  const std::int64_t batch = plan.pick<std::int64_t>(2, 128, 1024);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    if (plan.smoke) {
      add_batch_norm(plan, 128, 5, dtype);
      continue;
    }
    // Stages of ResNet-20, -18 and -152.
    for (const auto& [side, channels] :
         {std::pair<std::int64_t, std::int64_t>{32, 16}, {32, 64}, {8, 256}, {4, 512}})
      add_batch_norm(plan, batch * side * side, channels, dtype);
  }
}

}  // namespace retort::bench
