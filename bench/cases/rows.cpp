// Ops on the rows or columns of a matrix: softmax, sums and their reverse, bias, mean squared
// error, scaling of rows.
#include <memory>

#include "bench/cases/cases.h"
#include "bench/cases/inputs.h"
#include "bench/harness/session.h"
#include "engine/autograd/autograd.h"
#include "engine/ops/bias.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/mse.h"
#include "engine/ops/reduce.h"
#include "engine/runtime/device.h"
#include "kernels/bias/bias.h"
#include "kernels/distill_loss/distill_loss.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/gemm/gemm.h"
#include "kernels/mse/mse.h"
#include "kernels/reduce/reduce.h"
#include "kernels/softmax/softmax.h"

namespace retort::bench {
namespace {

struct Size {
  std::int64_t rows, columns;
};

constexpr std::int64_t kSamples = 20000;

double at(const Host& m, const Size& s, std::int64_t r, std::int64_t c) {
  return m[static_cast<std::size_t>(r * s.columns + c)];
}

std::int64_t sampled_rows(const Size& s) { return std::max<std::int64_t>(2, kSamples / s.columns); }

// touches: elements of the matrix's type moved, per element of it; flops likewise.
void add_case(Plan& plan, const std::string& name, const Size& s, DType dtype, double touches,
              double flops, std::function<Work(const Case&)> make) {
  Case c;
  c.name = name + "/" + shape_name(s.rows, s.columns);
  c.flops = flops * static_cast<double>(s.rows * s.columns);
  c.dtype = dtype;
  c.bytes = c.working_set =
      touches * static_cast<double>(s.rows * s.columns) * static_cast<double>(size_of(dtype));
  c.make = std::move(make);
  plan.add(std::move(c));
}

// ------------------------------------------------------------------------------ softmax

std::vector<double> softmax64(const Host& x, const Size& s, std::int64_t r, bool log) {
  std::vector<double> y;
  for (std::int64_t c = 0; c < s.columns; ++c) y.push_back(at(x, s, r, c));
  const double most = *std::max_element(y.begin(), y.end());
  double sum = 0;
  for (const double v : y) sum += std::exp(v - most);
  for (double& v : y) v = log ? v - most - std::log(sum) : std::exp(v - most) / sum;
  return y;
}

// One number per row for all of its columns: what a chain of plain ops needs.
Tensor wide_rows(const Tensor& v, const Size& s) {
  const Tensor wide = Tensor::empty({s.rows, s.columns}, v.dtype(), v.device());
  kernels::expand(context_of(v.device()),
                  {kernels::Sum::kRows, wide.raw(), v.raw(), s.rows, s.columns, 1, v.dtype()});
  return wide;
}

Work make_softmax(const Size& s, bool log, const Case& c) {
  const Tensor x = normal({s.rows, s.columns}, c.seed, c.dtype, c.device, 3),
               y = Tensor::empty({s.rows, s.columns}, c.dtype, c.device);
  Work w;
  w.run = [=] {
    kernels::softmax(kernel_context(c.device),
                     {y.raw(), x.raw(), s.rows, s.columns, s.columns, s.columns, log, c.dtype});
  };
  w.composed = [=] {  // without the maximum, which no plain op here gives: inputs are small
    const NoGrad no_grad;
    const Tensor e = retort::exp(x), total = sum_rows(e);
    static_cast<void>(log ? subtract(x, wide_rows(retort::log(total), s))
                          : divide(e, wide_rows(total, s)));
  };
  w.outputs = [=] { return std::vector<Tensor>{y}; };
  w.error = [=] {
    const auto a = Host(x), b = Host(y);
    Error64 e;
    for (const std::int64_t r : sampled(s.rows, sampled_rows(s))) {
      const std::vector<double> want = softmax64(a, s, r, log);
      for (std::int64_t k = 0; k < s.columns; ++k)
        e.add(at(b, s, r, k), want[static_cast<std::size_t>(k)]);
    }
    return e.value();
  };
  w.digest = [=] { return std::vector<double>{norm_of(y)}; };
  w.exports = [=] { return NamedTensors{{"x", x.to(Device::kCpu)}}; };
  return w;
}

Work make_softmax_backward(const Size& s, bool log, const Case& c) {
  const Tensor x = normal({s.rows, s.columns}, c.seed, c.dtype, c.device, 3),
               y = Tensor::empty({s.rows, s.columns}, c.dtype, c.device),
               dy = normal({s.rows, s.columns}, c.seed + 1, c.dtype, c.device),
               dx = Tensor::empty({s.rows, s.columns}, c.dtype, c.device);
  kernels::softmax(context_of(c.device),
                   {y.raw(), x.raw(), s.rows, s.columns, s.columns, s.columns, log, c.dtype});
  Work w;
  w.run = [=] {
    kernels::softmax_backward(kernel_context(c.device),
                              {dx.raw(), dy.raw(), y.raw(), s.rows, s.columns, s.columns, s.columns,
                               s.columns, log, c.dtype});
  };
  w.composed = [=] {
    const NoGrad no_grad;
    static_cast<void>(log ? subtract(dy, multiply(exp(y), wide_rows(sum_rows(dy), s)))
                          : multiply(subtract(dy, wide_rows(sum_rows(multiply(dy, y)), s)), y));
  };
  w.outputs = [=] { return std::vector<Tensor>{dx}; };
  w.error = [=] {
    const auto vy = Host(y), vdy = Host(dy), got = Host(dx);
    Error64 e;
    for (const std::int64_t r : sampled(s.rows, sampled_rows(s))) {
      double total = 0;
      for (std::int64_t k = 0; k < s.columns; ++k)
        total += at(vdy, s, r, k) * (log ? 1 : at(vy, s, r, k));
      for (std::int64_t k = 0; k < s.columns; ++k)
        e.add(at(got, s, r, k), log ? at(vdy, s, r, k) - std::exp(at(vy, s, r, k)) * total
                                    : (at(vdy, s, r, k) - total) * at(vy, s, r, k));
    }
    return e.value();
  };
  w.digest = [=] { return std::vector<double>{norm_of(dx)}; };
  w.exports = [=] { return NamedTensors{{"y", y.to(Device::kCpu)}, {"dy", dy.to(Device::kCpu)}}; };
  return w;
}

// ------------------------------------------------------------------------------ sums

double sum64(const Host& x, const Size& s, kernels::Sum kind, std::int64_t i) {
  double sum = 0;
  if (kind == kernels::Sum::kAll)
    for (std::size_t k = 0; k < x.size(); ++k) sum += x[k];
  if (kind == kernels::Sum::kRows)
    for (std::int64_t k = 0; k < s.columns; ++k) sum += at(x, s, i, k);
  if (kind == kernels::Sum::kColumns)
    for (std::int64_t r = 0; r < s.rows; ++r) sum += at(x, s, r, i);
  return sum;
}

std::int64_t results(const Size& s, kernels::Sum kind) {
  return kind == kernels::Sum::kAll ? 1 : kind == kernels::Sum::kRows ? s.rows : s.columns;
}

Work make_sum(const Size& s, kernels::Sum kind, const Case& c) {
  // Shifted: a sum near 0 would have no relative error to speak of.
  const Tensor x = normal({s.rows, s.columns}, c.seed, c.dtype, c.device, 1, 0.5),
               y = Tensor::empty({results(s, kind)}, c.dtype, c.device);
  Work w;
  w.run = [=] {
    kernels::sum(kernel_context(c.device),
                 {kind, y.raw(), x.raw(), s.rows, s.columns, s.columns, 1, c.dtype});
  };
  w.outputs = [=] { return std::vector<Tensor>{y}; };
  w.error = [=] {
    const auto a = Host(x), b = Host(y);
    Error64 e;
    for (const std::int64_t i : sampled(results(s, kind), 64))
      e.add(b[static_cast<std::size_t>(i)], sum64(a, s, kind, i));
    return e.value();
  };
  return w;
}

Work make_expand(const Size& s, kernels::Sum kind, const Case& c) {
  const Tensor x = normal({results(s, kind)}, c.seed, c.dtype, c.device),
               y = Tensor::empty({s.rows, s.columns}, c.dtype, c.device);
  Work w;
  w.run = [=] {
    kernels::expand(kernel_context(c.device),
                    {kind, y.raw(), x.raw(), s.rows, s.columns, 1, c.dtype});
  };
  w.outputs = [=] { return std::vector<Tensor>{y}; };
  w.error = [=] {
    const auto a = Host(x), b = Host(y);
    Error64 e;
    for (const std::int64_t i : sampled(s.rows * s.columns, kSamples)) {
      const std::int64_t from = kind == kernels::Sum::kAll    ? 0
                                : kind == kernels::Sum::kRows ? i / s.columns
                                                              : i % s.columns;
      e.add(b[static_cast<std::size_t>(i)], a[static_cast<std::size_t>(from)]);
    }
    return e.value();
  };
  return w;
}

// ------------------------------------------------------------------------------ bias

Work make_bias(const Size& s, const Case& c) {
  const Tensor x = normal({s.rows, s.columns}, c.seed, c.dtype, c.device),
               b = normal({s.columns}, c.seed + 1, c.dtype, c.device),
               y = Tensor::empty({s.rows, s.columns}, c.dtype, c.device);
  Work w;
  w.run = [=] {
    kernels::bias(kernel_context(c.device), {y.raw(), x.raw(), b.raw(), s.rows, s.columns,
                                             kernels::Activation::kRelu, c.dtype});
  };
  w.composed = [=] {
    const NoGrad no_grad;
    const Tensor wide = Tensor::empty({s.rows, s.columns}, c.dtype, c.device);
    kernels::expand(kernel_context(c.device),
                    {kernels::Sum::kColumns, wide.raw(), b.raw(), s.rows, s.columns, 1, c.dtype});
    static_cast<void>(relu(add(x, wide)));
  };
  w.outputs = [=] { return std::vector<Tensor>{y}; };
  w.error = [=] {
    const auto vx = Host(x), vb = Host(b), got = Host(y);
    Error64 e;
    for (const std::int64_t i : sampled(s.rows * s.columns, kSamples)) {
      const auto k = static_cast<std::size_t>(i);
      e.add(got[k], std::max(0.0, vx[k] + vb[k % static_cast<std::size_t>(s.columns)]));
    }
    return e.value();
  };
  return w;
}

Work make_bias_backward(const Size& s, const Case& c) {
  const Tensor y = relu(normal({s.rows, s.columns}, c.seed, c.dtype, c.device)),
               dy = normal({s.rows, s.columns}, c.seed + 1, c.dtype, c.device, 1, 0.5),
               dx = Tensor::empty({s.rows, s.columns}, c.dtype, c.device),
               db = Tensor::empty({s.columns}, c.dtype, c.device);
  Work w;
  w.run = [=] {
    kernels::bias_backward(kernel_context(c.device),
                           {dx.raw(), db.raw(), dy.raw(), y.raw(), s.rows, s.columns,
                            kernels::Activation::kRelu, c.dtype});
  };
  w.composed = [=] {
    const NoGrad no_grad;
    const Tensor masked = Tensor::empty({s.rows, s.columns}, c.dtype, c.device);
    kernels::unary_backward(
        kernel_context(c.device),
        {kernels::Unary::kRelu, masked.raw(), dy.raw(), y.raw(), s.rows * s.columns, 1, c.dtype});
    static_cast<void>(column_sum(masked));
  };
  w.outputs = [=] { return std::vector<Tensor>{dx, db}; };
  w.error = [=] {
    const auto vy = Host(y), vdy = Host(dy), gx = Host(dx), gb = Host(db);
    Error64 ex, eb;
    for (const std::int64_t i : sampled(s.rows * s.columns, kSamples)) {
      const auto k = static_cast<std::size_t>(i);
      ex.add(gx[k], vy[k] > 0 ? vdy[k] : 0);
    }
    for (const std::int64_t k : sampled(s.columns, 64)) {
      double sum = 0;
      for (std::int64_t r = 0; r < s.rows; ++r)
        if (at(vy, s, r, k) > 0) sum += at(vdy, s, r, k);
      eb.add(gb[static_cast<std::size_t>(k)], sum);
    }
    return worse(ex.value(), eb.value());
  };
  return w;
}

// ------------------------------------------------------------------------------ mean squared error

Work make_mse(const Size& s, bool backward, const Case& c) {
  const std::int64_t n = s.rows * s.columns;
  Tensor x = normal({n}, c.seed, c.dtype, c.device);
  const Tensor target = normal({n}, c.seed + 1, c.dtype, c.device),
               loss = Tensor::empty({}, c.dtype, c.device),
               dloss = Tensor::scalar(1, c.dtype, c.device),
               dx = Tensor::empty({n}, c.dtype, c.device);
  Work w;
  w.run = [=] {
    if (backward)
      kernels::mse_backward(kernel_context(c.device),
                            {dx.raw(), nullptr, x.raw(), target.raw(), dloss.raw(), n, c.dtype});
    else
      kernels::mse(kernel_context(c.device), {loss.raw(), x.raw(), target.raw(), n, c.dtype});
  };
  w.composed = [=] {
    const NoGrad no_grad;
    if (backward)
      static_cast<void>(multiply(scale(subtract(x, target), 2 / static_cast<double>(n)), dloss));
    else
      static_cast<void>(mse_composed(x, target));
  };
  w.outputs = [=] { return std::vector<Tensor>{backward ? dx : loss}; };
  w.error = [=] {
    const auto a = Host(x), b = Host(target);
    Error64 e;
    if (backward) {
      const Host got(dx);
      for (const std::int64_t i : sampled(n, kSamples)) {
        const auto k = static_cast<std::size_t>(i);
        e.add(got[k], 2.0 / static_cast<double>(n) * (a[k] - b[k]));
      }
    } else {
      double sum = 0;
      for (std::size_t k = 0; k < a.size(); ++k) sum += (a[k] - b[k]) * (a[k] - b[k]);
      e.add(loss.item(), sum / static_cast<double>(n));
    }
    return e.value();
  };
  return w;
}

// ------------------------------------------------------------------------------ scaled rows

Work make_scale_rows(const Size& s, const Case& c) {
  const Tensor x0 = normal({s.rows, s.columns}, c.seed, c.dtype, c.device), x = x0.clone(),
               factor = Tensor::scalar(-1, DType::kF32, c.device);
  Work w;
  w.run = [=] {
    kernels::scale_rows(kernel_context(c.device),
                        {x.raw(), factor.raw(), s.rows, s.columns, s.columns, c.dtype});
  };
  w.reset = [=] { x.copy_from(x0); };
  w.outputs = [=] { return std::vector<Tensor>{x}; };
  w.error = [=] {
    const auto a = Host(x0), b = Host(x);
    Error64 e;
    for (std::size_t k = 0; k < a.size(); ++k) e.add(b[k], -a[k]);
    return e.value();
  };
  return w;
}

}  // namespace

void add_row_cases(Plan& plan) {
  const std::vector<Size> wide =
      plan.pick<std::vector<Size>>({{3, 33}}, {{1024, 10}, {1024, 1000}, {1024, 28996}},
                                   {{65536, 10}, {65536, 1000}, {8192, 30522}});
  const std::vector<Size> layers = plan.pick<std::vector<Size>>(
      {{5, 7}}, {{1024, 1000}, {32768, 256}}, {{1024, 1000}, {32768, 768}});
  using kernels::Sum;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const Size& s : wide) {
      for (const bool log : {false, true}) {
        const std::string name = log ? "log_softmax" : "softmax";
        add_case(plan, name, s, dtype, 2, 5,
                 [=](const Case& c) { return make_softmax(s, log, c); });
        add_case(plan, name + "_backward", s, dtype, 3, 4,
                 [=](const Case& c) { return make_softmax_backward(s, log, c); });
      }
      add_case(plan, "scale_rows", s, dtype, 2, 1,
               [=](const Case& c) { return make_scale_rows(s, c); });
    }
    for (const Size& s : layers) {
      const auto sum_case = [&](const char* name, Sum kind) {
        add_case(plan, name, s, dtype, 1, 1, [=](const Case& c) { return make_sum(s, kind, c); });
      };
      sum_case("sum/all", Sum::kAll);
      sum_case("sum/rows", Sum::kRows);
      sum_case("sum/columns", Sum::kColumns);
      for (const auto& [name, kind] : {std::pair{"expand/all", Sum::kAll},
                                       {"expand/rows", Sum::kRows},
                                       {"expand/columns", Sum::kColumns}})
        add_case(plan, name, s, dtype, 1, 0,
                 [s, kind = kind](const Case& c) { return make_expand(s, kind, c); });
      add_case(plan, "bias_relu", s, dtype, 2, 2, [=](const Case& c) { return make_bias(s, c); });
      add_case(plan, "bias_relu_backward", s, dtype, 3, 2,
               [=](const Case& c) { return make_bias_backward(s, c); });
      add_case(plan, "mse", s, dtype, 2, 3, [=](const Case& c) { return make_mse(s, false, c); });
      add_case(plan, "mse_backward", s, dtype, 3, 2,
               [=](const Case& c) { return make_mse(s, true, c); });
    }
  }
}

}  // namespace retort::bench
