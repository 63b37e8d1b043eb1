// Elementwise ops, conversion, filling, accumulation and random numbers: memory-bound loops over n
// elements.
#include <memory>

#include "bench/cases/cases.h"
#include "bench/cases/inputs.h"
#include "bench/harness/session.h"
#include "engine/runtime/device.h"
#include "kernels/axpy/axpy.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/random/random.h"
#include "kernels/slice_sum/slice_sum.h"

namespace retort::bench {
namespace {

using kernels::Binary;
using kernels::Unary;

constexpr std::int64_t kSamples = 20000;

// One input or two, one output, all of n elements, and what each output should be.
struct Loop {
  std::function<void(const Context&, const Tensor& y, const Tensor& a, const Tensor& b)> run;
  std::function<double(double a, double b)> want;
  bool two = false, positive = false, in_place = false;
  double flops = 0;  // per element
};

Work make_loop(const Loop& loop, std::int64_t n, const Case& c) {
  struct State {
    Tensor a, b, y, y0;
  };
  auto s = std::make_shared<State>();
  // Inputs that must be positive are e.g. 2 +- a little.
  const double scale = loop.positive ? 0.2 : 1, shift = loop.positive ? 2 : 0;
  s->a = normal({n}, c.seed, c.dtype, c.device, scale, shift);
  s->b = loop.two ? normal({n}, c.seed + 1, c.dtype, c.device, scale, shift) : s->a;
  s->y = Tensor::empty({n}, c.dtype, c.device);
  Work w;
  if (loop.in_place) {
    s->y0 = normal({n}, c.seed + 2, c.dtype, c.device);
    s->y.copy_from(s->y0);
    w.reset = [s] { s->y.copy_from(s->y0); };
  }
  w.run = [=] { loop.run(kernel_context(c.device), s->y, s->a, s->b); };
  w.outputs = [s] { return std::vector<Tensor>{s->y}; };
  w.error = [=] {
    const auto a = Host(s->a), y = Host(s->y), b = loop.in_place ? Host(s->y0) : Host(s->b);
    Error64 e;
    for (const std::int64_t at : sampled(n, kSamples)) {
      const auto i = static_cast<std::size_t>(at);
      e.add(y[i], loop.want(a[i], b[i]));
    }
    return e.value();
  };
  return w;
}

void add_loop(Plan& plan, const std::string& name, std::int64_t n, DType dtype, const Loop& loop) {
  Case c;
  c.name = name + "/" + shape_name(n);
  c.dtype = dtype;
  c.bytes = c.working_set = static_cast<double>(n) * static_cast<double>(size_of(dtype)) *
                            (loop.two || loop.in_place ? 3 : 2);
  c.flops = loop.flops * static_cast<double>(n);
  c.make = [loop, n](const Case& made) { return make_loop(loop, n, made); };
  plan.add(std::move(c));
}

// By the formulas of elementwise_math.h.
constexpr double forward_flops(Unary op) {
  return op == Unary::kAffine     ? 2
         : op == Unary::kSigmoid  ? 4
         : op == Unary::kGelu     ? 5
         : op == Unary::kGeluTanh ? 9
                                  : 1;
}
constexpr double backward_flops(Unary op) {
  switch (op) {
    case Unary::kSquare:
    case Unary::kSqrt: return 2;
    case Unary::kTanh:
    case Unary::kSigmoid: return 3;
    case Unary::kGelu: return 11;
    case Unary::kGeluTanh: return 17;
    default: return 1;
  }
}

template <Unary kOp>
void add_unary(Plan& plan, std::int64_t n, DType dtype) {
  constexpr double kA = 1.5, kB = 0.25;
  Loop forward;
  forward.flops = forward_flops(kOp);
  forward.positive = kOp == Unary::kLog || kOp == Unary::kSqrt;
  forward.run = [n, dtype](const Context& context, const Tensor& y, const Tensor& a,
                           const Tensor&) {
    kernels::unary(context, {kOp, y.raw(), a.raw(), n, kA, kB, dtype});
  };
  forward.want = [](double x, double) { return kernels::unary_forward<kOp, double>(x, kA, kB); };
  const std::string name = std::string("unary/") + name_of(kOp);
  add_loop(plan, name, n, dtype, forward);
  Loop backward;
  backward.flops = backward_flops(kOp);
  backward.two = true;
  backward.positive = forward.positive;
  backward.run = [n, dtype](const Context& context, const Tensor& y, const Tensor& a,
                            const Tensor& b) {
    kernels::unary_backward(context, {kOp, y.raw(), a.raw(), b.raw(), n, kA, dtype});
  };
  backward.want = [](double dy, double saved) {
    return kernels::unary_backward<kOp, double>(dy, saved, kA);
  };
  add_loop(plan, std::string("unary_backward/") + name_of(kOp), n, dtype, backward);
}

template <Binary kOp>
void add_binary(Plan& plan, std::int64_t n, DType dtype) {
  Loop loop;
  loop.two = true;
  loop.flops = 1;
  loop.positive = kOp == Binary::kDivide;
  loop.run = [n, dtype](const Context& context, const Tensor& y, const Tensor& a, const Tensor& b) {
    kernels::binary(context, {kOp, y.raw(), a.raw(), b.raw(), n, false, dtype});
  };
  loop.want = [](double a, double b) { return kernels::binary_forward<kOp, double>(a, b); };
  add_loop(plan, std::string("binary/") + name_of(kOp), n, dtype, loop);
}

void add_axpy(Plan& plan, std::int64_t n, DType dtype) {
  Loop loop;
  loop.in_place = true;
  loop.flops = 2;
  loop.run = [n, dtype](const Context& context, const Tensor& y, const Tensor& x, const Tensor&) {
    kernels::axpy(context, {y.raw(), x.raw(), 0.5, n, dtype});
  };
  loop.want = [](double x, double y) { return y + 0.5 * x; };
  add_loop(plan, "axpy", n, dtype, loop);
}

// Two neighbours of a sum of slices, left + right.
void add_slice_sum(Plan& plan, std::int64_t n) {
  Loop loop;
  loop.two = true;
  loop.flops = 1;
  loop.run = [n](const Context& context, const Tensor& y, const Tensor& a, const Tensor& b) {
    kernels::SliceSumArgs args;
    args.push(a.data<float>());
    args.push(b.data<float>());
    args.out = y.data<float>();
    args.n = n;
    kernels::slice_sum(context, args);
  };
  loop.want = [](double a, double b) { return a + b; };
  add_loop(plan, "slice_sum", n, DType::kF32, loop);
}

void add_running_average(Plan& plan, std::int64_t n) {
  Loop loop;
  loop.in_place = true;
  loop.flops = 4;
  loop.run = [n](const Context& context, const Tensor& y, const Tensor& x, const Tensor&) {
    kernels::running_average(context, {y.data<float>(), x.data<float>(), n, 4, 0.1, nullptr});
  };
  loop.want = [](double x, double y) { return 0.9 * y + 0.1 * (x / 4); };
  add_loop(plan, "running_average", n, DType::kF32, loop);
}

// dtype names what is read; f32 is cast to bf16 and back.
void add_cast(Plan& plan, std::int64_t n, DType from, DType to) {
  Case c;
  c.name = std::string("cast_to_") + name_of(to) + "/" + shape_name(n);
  c.dtype = from;
  c.error_bound = default_error_bound(to);
  c.bytes = c.working_set =
      static_cast<double>(n) * static_cast<double>(size_of(from) + size_of(to));
  c.make = [=](const Case& made) {
    const Tensor x = normal({n}, made.seed, from, made.device),
                 y = Tensor::empty({n}, to, made.device);
    Work w;
    w.run = [=, device = made.device] {
      kernels::cast(kernel_context(device), {y.raw(), x.raw(), to, from, 1, n, n, n});
    };
    w.outputs = [=] { return std::vector<Tensor>{y}; };
    w.error = [=] {
      const auto a = Host(x), b = Host(y);
      Error64 e;
      for (const std::int64_t i : sampled(n, kSamples))
        e.add(b[static_cast<std::size_t>(i)], a[static_cast<std::size_t>(i)]);
      return e.value();
    };
    return w;
  };
  plan.add(std::move(c));
}

void add_fill(Plan& plan, std::int64_t n, DType dtype) {
  Case c;
  c.name = "fill/" + shape_name(n);
  c.dtype = dtype;
  c.bytes = c.working_set = static_cast<double>(n) * static_cast<double>(size_of(dtype));
  c.make = [=](const Case& made) {
    const Tensor y = Tensor::empty({n}, dtype, made.device);
    Work w;
    w.run = [=, device = made.device] {
      kernels::fill(kernel_context(device), {y.raw(), 0.75, dtype, 1, n, n});
    };
    w.outputs = [=] { return std::vector<Tensor>{y}; };
    w.error = [=] {
      Error64 e;
      const Host got(y);
      for (const std::int64_t i : sampled(n, kSamples))
        e.add(got[static_cast<std::size_t>(i)], 0.75);
      return e.value();
    };
    return w;
  };
  plan.add(std::move(c));
}

// Uniform numbers are checked exactly; normal ones against Box-Muller in double.
double random_value(kernels::Random kind, std::uint64_t seed, std::int64_t i) {
  const bool signs = kind == kernels::Random::kSigns;
  const std::int64_t per_block = signs ? 128 : 4;
  const Philox4 r = philox(seed, static_cast<std::uint32_t>(i / per_block), 0, 0, 0);
  const auto k = static_cast<int>(i % per_block);
  const double u = static_cast<double>(uniform01(r.v[signs ? 0 : k]));
  if (kind == kernels::Random::kUniform) return u;
  if (kind == kernels::Random::kBernoulli) return u < static_cast<double>(0.9f) ? 1 : 0;
  if (signs) return (r.v[k / 32] >> (k % 32) & 1u) != 0 ? 1 : -1;
  const int first = k / 2 * 2;
  const double radius =
      std::sqrt(-2 * std::log(static_cast<double>(uniform01(r.v[first])) + std::ldexp(1.0, -24)));
  const double angle = 2 * 3.14159265358979323846 * static_cast<double>(uniform01(r.v[first + 1]));
  return radius * (k == first ? std::cos(angle) : std::sin(angle));
}

void add_random(Plan& plan, std::int64_t n, kernels::Random kind, const char* name) {
  Case c;
  c.name = std::string("random/") + name + "/" + shape_name(n);
  c.bytes = c.working_set = 4 * static_cast<double>(n);
  c.make = [=](const Case& made) {
    const Tensor y = Tensor::empty({n}, DType::kF32, made.device);
    Work w;
    w.run = [=, device = made.device, seed = made.seed] {
      kernels::RandomArgs a{kind, y.raw(), n};
      if (kind == kernels::Random::kBernoulli) a.a = 0.9;
      a.seed = seed;
      kernels::random(kernel_context(device), a);
    };
    w.outputs = [=] { return std::vector<Tensor>{y}; };
    w.error = [=, seed = made.seed] {
      const std::vector<float> got = y.to_vector<float>();
      Error64 e;
      for (const std::int64_t i : sampled(n, kSamples))
        e.add(static_cast<double>(got[static_cast<std::size_t>(i)]), random_value(kind, seed, i));
      return e.value();
    };
    return w;
  };
  plan.add(std::move(c));
}

}  // namespace

void add_elementwise_cases(Plan& plan) {
  // 32,768 x 768, and a hidden layer of the parity network.
  const std::vector<std::int64_t> sizes = plan.pick<std::vector<std::int64_t>>(
      {37}, {1024 * 1000, 16777216}, {1024 * 1000, 32768 * 768});
  for (const std::int64_t n : sizes)
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      add_unary<Unary::kAffine>(plan, n, dtype);
      add_unary<Unary::kRelu>(plan, n, dtype);
      add_unary<Unary::kExp>(plan, n, dtype);
      add_unary<Unary::kLog>(plan, n, dtype);
      add_unary<Unary::kSquare>(plan, n, dtype);
      add_unary<Unary::kSqrt>(plan, n, dtype);
      add_unary<Unary::kTanh>(plan, n, dtype);
      add_unary<Unary::kAbs>(plan, n, dtype);
      add_unary<Unary::kSigmoid>(plan, n, dtype);
      add_unary<Unary::kGelu>(plan, n, dtype);
      add_unary<Unary::kGeluTanh>(plan, n, dtype);
      add_binary<Binary::kAdd>(plan, n, dtype);
      add_binary<Binary::kSubtract>(plan, n, dtype);
      add_binary<Binary::kMultiply>(plan, n, dtype);
      add_binary<Binary::kDivide>(plan, n, dtype);
      add_axpy(plan, n, dtype);
      add_fill(plan, n, dtype);
    }
  for (const std::int64_t n : sizes) {
    add_slice_sum(plan, n);
    add_running_average(plan, n);
    add_cast(plan, n, DType::kF32, DType::kBF16);
    add_cast(plan, n, DType::kBF16, DType::kF32);
    add_random(plan, n, kernels::Random::kUniform, "uniform");
    add_random(plan, n, kernels::Random::kNormal, "normal");
    add_random(plan, n, kernels::Random::kBernoulli, "bernoulli");
    add_random(plan, n, kernels::Random::kSigns, "signs");
  }
}

}  // namespace retort::bench
