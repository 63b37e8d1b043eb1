// Optimizer updates and the gradient norm over one flat array, as the parameter arena holds it.
#include <memory>

#include "bench/cases/cases.h"
#include "bench/cases/inputs.h"
#include "bench/harness/session.h"
#include "engine/autograd/autograd.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "kernels/adamw/adamw_composed.h"
#include "kernels/grad_norm/grad_norm_composed.h"
#include "kernels/sgd/sgd_composed.h"

namespace retort::bench {
namespace {

constexpr double kRate = 0.01, kDecay = 0.01, kMomentum = 0.9;
constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEpsilon = 1e-8;
constexpr double kMaxNorm = 1;
constexpr int kStep = 10;

struct State {
  Tensor parameter, gradient, m, v;  // v: AdamW alone
  Tensor rate, step;
  std::uint64_t seed = 0;
};

// The values before the update are made again where they are asked for: a copy of them would be
// counted as the case's memory.
enum class Array : std::uint64_t { kParameter, kGradient, kM, kV };
void fill(const State& s, Array which, const Tensor& t) {
  const std::uint64_t seed = s.seed + static_cast<std::uint64_t>(which);
  fill_normal(t, {seed, 0, 0, path_hash("bench")}, 0, which == Array::kParameter ? 0.05 : 0.01);
  if (which == Array::kV) t.copy_from(square(t));
}
Tensor before(const State& s, Array which) {
  const Tensor t = Tensor::empty(s.parameter.shape(), DType::kF32, s.parameter.device());
  fill(s, which, t);
  return t;
}

std::shared_ptr<State> make_state(std::int64_t n, const Case& c, bool second) {
  auto s = std::make_shared<State>();
  s->seed = c.seed;
  s->parameter = Tensor::empty({n}, DType::kF32, c.device);
  s->gradient = Tensor::empty({n}, c.dtype, c.device);
  s->m = Tensor::empty({n}, DType::kF32, c.device);
  fill(*s, Array::kParameter, s->parameter);
  fill(*s, Array::kGradient, s->gradient);
  fill(*s, Array::kM, s->m);
  if (second) {
    s->v = Tensor::empty({n}, DType::kF32, c.device);
    fill(*s, Array::kV, s->v);
  }
  s->rate = Tensor::scalar(kRate, DType::kF32, c.device);
  s->step = Tensor::full({}, kStep, DType::kI64, c.device);
  return s;
}

void finish(Work& w, const std::shared_ptr<State>& s) {
  w.reset = [s] {
    fill(*s, Array::kParameter, s->parameter);
    fill(*s, Array::kM, s->m);
    if (s->v.defined()) fill(*s, Array::kV, s->v);
  };
  w.outputs = [s] {
    std::vector<Tensor> all{s->parameter, s->m};
    if (s->v.defined()) all.push_back(s->v);
    return all;
  };
  w.digest = [s] { return std::vector<double>{norm_of(s->parameter), norm_of(s->m)}; };
  w.exports = [s] {
    NamedTensors all{{"parameter", before(*s, Array::kParameter).to(Device::kCpu)},
                     {"gradient", s->gradient.to(Device::kCpu)},
                     {"m", before(*s, Array::kM).to(Device::kCpu)}};
    if (s->v.defined()) all.emplace_back("v", before(*s, Array::kV).to(Device::kCpu));
    return all;
  };
}

struct Element {
  double p = 0, m = 0, v = 0;
};

// The worst of the parameter and the moments: want(before, gradient) is the element after the
// update, in double.
template <class F>
double sampled_error(const State& s, F&& want) {
  const bool second = s.v.defined();
  const Host p(s.parameter), p0(before(s, Array::kParameter)), g(s.gradient), m(s.m),
      m0(before(s, Array::kM)), v = second ? Host(s.v) : Host(),
                                v0 = second ? Host(before(s, Array::kV)) : Host();
  Error64 ep, em, ev;
  for (const std::int64_t at : sampled(s.parameter.numel(), 10000)) {
    const auto i = static_cast<std::size_t>(at);
    const Element next = want(Element{p0[i], m0[i], second ? v0[i] : 0}, g[i]);
    // Of the change, not the value: an update of nothing must not look exact.
    ep.add(p[i] - p0[i], next.p - p0[i]);
    em.add(m[i] - m0[i], next.m - m0[i]);
    if (second) ev.add(v[i] - v0[i], next.v - v0[i]);
  }
  return worse(ep.value(), worse(em.value(), ev.value()));
}

Work make_sgd(std::int64_t n, const Case& c) {
  const auto s = make_state(n, c, false);
  Work w;
  w.run = [=] {
    kernels::SgdArgs a;
    a.parameter = s->parameter.raw(), a.gradient = s->gradient.raw();
    a.momentum_buffer = s->m.raw(), a.n = n;
    a.learning_rate = s->rate.data<float>(), a.step = s->step.data<std::int64_t>();
    a.momentum = kMomentum, a.weight_decay = kDecay;
    a.gradient_dtype = c.dtype;
    kernels::sgd(kernel_context(c.device), a);
  };
  w.composed = [=] {
    const NoGrad no_grad;
    const Tensor g = add(s->gradient.to(DType::kF32), scale(s->parameter, kDecay));
    s->m.copy_from(add(scale(s->m, kMomentum), g));
    s->parameter.copy_from(subtract(s->parameter, scale(s->m, kRate)));
  };
  w.error = [s] {
    return sampled_error(*s, [](const Element& old, double g) {
      kernels::SgdArgs a;
      a.momentum = kMomentum, a.weight_decay = kDecay;
      const double rate = static_cast<double>(static_cast<float>(kRate));
      const kernels::SgdElement next = kernels::sgd_composed({old.p, old.m}, g, a, rate, kStep);
      return Element{next.p, next.b};
    });
  };
  finish(w, s);
  return w;
}

Work make_adamw(std::int64_t n, const Case& c) {
  const auto s = make_state(n, c, true);
  Work w;
  w.run = [=] {
    kernels::AdamWArgs a;
    a.parameter = s->parameter.raw(), a.gradient = s->gradient.raw();
    a.first_moment = s->m.raw(), a.second_moment = s->v.raw(), a.n = n;
    a.learning_rate = s->rate.data<float>(), a.step = s->step.data<std::int64_t>();
    a.beta1 = kBeta1, a.beta2 = kBeta2, a.epsilon = kEpsilon, a.weight_decay = kDecay;
    a.gradient_dtype = c.dtype;
    kernels::adamw(kernel_context(c.device), a);
  };
  w.composed = [=] {
    const NoGrad no_grad;
    const Tensor g = s->gradient.to(DType::kF32);
    s->m.copy_from(add(scale(s->m, kBeta1), scale(g, 1 - kBeta1)));
    s->v.copy_from(add(scale(s->v, kBeta2), scale(square(g), 1 - kBeta2)));
    const Tensor root = add_scalar(sqrt(scale(s->v, 1 / (1 - std::pow(kBeta2, kStep)))), kEpsilon);
    s->parameter.copy_from(
        subtract(scale(s->parameter, 1 - kRate * kDecay),
                 scale(divide(s->m, root), kRate / (1 - std::pow(kBeta1, kStep)))));
  };
  w.error = [s] {
    return sampled_error(*s, [](const Element& old, double g) {
      kernels::AdamWArgs a;
      a.beta1 = kBeta1, a.beta2 = kBeta2, a.epsilon = kEpsilon, a.weight_decay = kDecay;
      const double rate = static_cast<double>(static_cast<float>(kRate));
      const kernels::AdamWElement next =
          kernels::adamw_composed({old.p, old.m, old.v}, g, a, rate, kStep);
      return Element{next.p, next.m, next.v};
    });
  };
  finish(w, s);
  return w;
}

// The whole gradient in one piece, or cut as the tensors of a network are: by turns a bias, a small
// matrix and the rest, so that one CUDA launch of 64 segments does not do.
std::vector<std::int64_t> segment_sizes(std::int64_t n, bool many) {
  if (!many) return {n};
  constexpr std::int64_t kSegments = 200;
  std::vector<std::int64_t> sizes;
  std::int64_t left = n;
  for (std::int64_t i = 0; i + 1 < kSegments && left > 0; ++i) {
    const std::int64_t wanted = i % 3 == 0 ? 61 : i % 3 == 1 ? 4099 : 3 * n / kSegments;
    sizes.push_back(std::min(wanted, left));
    left -= sizes.back();
  }
  if (left > 0) sizes.push_back(left);
  return sizes;
}

struct Norm {
  Tensor gradient, norm, clip, bad;
  std::vector<kernels::GradientSegment> segments;
};

template <bool kMany>
Work make_grad_norm(std::int64_t n, const Case& c) {
  auto s = std::make_shared<Norm>();
  s->gradient = normal({n}, c.seed, c.dtype, c.device);
  s->norm = Tensor::empty({}, DType::kF32, c.device);
  s->clip = Tensor::empty({}, DType::kF32, c.device);
  s->bad = Tensor::empty({}, DType::kI32, c.device);
  const char* at = static_cast<const char*>(s->gradient.raw());
  for (const std::int64_t size : segment_sizes(n, kMany)) {
    s->segments.push_back({at, size});
    at += size * static_cast<std::int64_t>(size_of(c.dtype));
  }
  Work w;
  w.run = [=] {
    kernels::GradNormArgs a;
    a.segments = s->segments;
    a.norm = s->norm.data<float>(), a.clip = s->clip.data<float>();
    a.not_finite = s->bad.data<std::int32_t>();
    a.max_norm = kMaxNorm, a.dtype = c.dtype;
    kernels::grad_norm(kernel_context(c.device), a);
  };
  w.composed = [=] {
    const NoGrad no_grad;
    static_cast<void>(sqrt(sum(square(s->gradient))));
  };
  w.outputs = [=] { return std::vector<Tensor>{s->norm, s->clip, s->bad}; };
  w.error = [=] {
    const kernels::GradNorm want = kernels::grad_norm_composed(Host(s->gradient), kMaxNorm);
    return worse(
        worse(relative_error(s->norm.item(), want.norm), relative_error(s->clip.item(), want.clip)),
        s->bad.item());
  };
  w.digest = [=] { return std::vector<double>{s->norm.item(), s->clip.item()}; };
  w.exports = [=] { return NamedTensors{{"gradient", s->gradient.to(Device::kCpu)}}; };
  return w;
}

constexpr std::int64_t kDistilBert = 66362880;  // its parameters

void add_case(Plan& plan, const std::string& op, std::int64_t n, DType dtype, double bytes_each,
              double flops_each, Work (*make)(std::int64_t, const Case&)) {
  Case c;
  c.name = op + "/" + shape_name(n);
  c.dtype = dtype;  // of the gradient
  // Of results in f32. Half an ulp of the largest parameter is 3e-5 of the largest change.
  c.error_bound = 1e-4;
  c.bytes = c.working_set = bytes_each * static_cast<double>(n);
  c.flops = flops_each * static_cast<double>(n);
  c.goal = op == "adamw" && n == kDistilBert && dtype == DType::kF32;
  c.make = [make, n](const Case& made) { return make(n, made); };
  plan.add(std::move(c));
}

}  // namespace

void add_optimizer_cases(Plan& plan) {
  // The parameters of ResNet-8, ResNet-18 and, on a GPU, DistilBERT.
  const std::vector<std::int64_t> sizes =
      plan.pick<std::vector<std::int64_t>>({37}, {77850, 11173962}, {11173962, kDistilBert});
  for (const std::int64_t n : sizes)
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const double g = static_cast<double>(size_of(dtype));
      add_case(plan, "sgd/momentum", n, dtype, g + 16, 6, make_sgd);  // p, m read and written
      add_case(plan, "adamw", n, dtype, g + 24, 15, make_adamw);      // p, m, v
      add_case(plan, "grad_norm", n, dtype, g, 2, make_grad_norm<false>);
      add_case(plan, "grad_norm_segments", n, dtype, g, 2, make_grad_norm<true>);
    }
}

}  // namespace retort::bench
