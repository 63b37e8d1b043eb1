// The fused distillation loss, forward and gradient in one call with all statistics, beside the
// chain of plain ops that defines it.
#include <memory>

#include "bench/cases/cases.h"
#include "bench/cases/inputs.h"
#include "bench/harness/session.h"
#include "distill/losses/distillation_loss.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "engine/ops/softmax.h"
#include "kernels/distill_loss/distill_loss.h"

namespace retort::bench {
namespace {

using kernels::Divergence;

// Logits above which the chain's many tensors might not fit beside the case.
constexpr std::int64_t kMostChained = std::int64_t{1} << 29;

struct Setting {
  std::int64_t rows, classes;
  Divergence divergence;
  double tau;
};

struct Problem {
  Tensor student, teacher, targets, lambda, tau, z;     // inputs
  Tensor gradient, total, statistics, argmax, correct;  // outputs
  Tensor leaf, one_hot;                                 // of the chain
};

// D(p, q) and h_v = q_v dD/dq_v of one row in double, as the header defines them.
double divergence_of(Divergence kind, double b, const std::vector<double>& p,
                     const std::vector<double>& q, std::vector<double>& h) {
  double d = 0;
  for (std::size_t v = 0; v < p.size(); ++v) {
    switch (kind) {
      case Divergence::kForwardKl:
        d += p[v] * std::log(p[v] / q[v]);
        h[v] = -p[v];
        break;
      case Divergence::kReverseKl:
        d += q[v] * std::log(q[v] / p[v]);
        h[v] = q[v] * (std::log(q[v] / p[v]) + 1);
        break;
      case Divergence::kJensenShannon: {
        const double m = b * p[v] + (1 - b) * q[v];
        d += b * p[v] * std::log(p[v] / m) + (1 - b) * q[v] * std::log(q[v] / m);
        h[v] = (1 - b) * q[v] * std::log(q[v] / m);
        break;
      }
      case Divergence::kTotalVariation:
        d += std::abs(p[v] - q[v]) / 2;
        h[v] = q[v] * (q[v] > p[v] ? 0.5 : q[v] < p[v] ? -0.5 : 0);
        break;
      case Divergence::kSkewKl: {
        const double m = b * p[v] + (1 - b) * q[v];
        d += p[v] * std::log(p[v] / m);
        h[v] = -(1 - b) * p[v] * q[v] / m;
        break;
      }
      case Divergence::kSkewReverseKl: {
        const double m = b * q[v] + (1 - b) * p[v];
        d += q[v] * std::log(q[v] / m);
        h[v] = q[v] * (std::log(q[v] / m) + 1 - b * q[v] / m);
        break;
      }
    }
  }
  return d;
}

std::vector<double> softmax64(const std::vector<double>& x, double tau) {
  const double most = *std::max_element(x.begin(), x.end());
  std::vector<double> y(x.size());
  double sum = 0;
  for (std::size_t v = 0; v < x.size(); ++v) sum += y[v] = std::exp((x[v] - most) / tau);
  for (double& value : y) value /= sum;
  return y;
}

// Worst of the gradient (as a share of the row's largest) and of CE and D (relative, from 1e-3 up),
// over up to 20,000 logits of rows spread over the batch.
double error_of(const Problem& p, const Setting& s) {
  const std::vector<std::int64_t> rows =
      sampled(s.rows, std::max<std::int64_t>(2, 20000 / s.classes));
  const std::vector<std::int32_t> y = p.targets.to_vector<std::int32_t>();
  const std::vector<float> statistics = p.statistics.to_vector<float>();
  const double lambda = p.lambda.item(), tau = p.tau.item();
  double worst = 0;
  for (const std::int64_t i : rows) {
    const auto row = [&](const Tensor& t) { return t.slice(i, i + 1).to_vector<double>(); };
    const std::vector<double> student = row(p.student), teacher = row(p.teacher),
                              got = row(p.gradient), q1 = softmax64(student, 1),
                              q = softmax64(student, tau), pt = softmax64(teacher, tau);
    std::vector<double> h(q.size());
    const double d =
        divergence_of(s.divergence, kernels::default_parameter(s.divergence), pt, q, h);
    double sum_h = 0;
    for (const double v : h) sum_h += v;
    const auto target = static_cast<std::size_t>(y[static_cast<std::size_t>(i)]);
    Error64 gradient;
    for (std::size_t v = 0; v < q.size(); ++v)
      gradient.add(got[v], ((1 - lambda) * (q1[v] - (v == target ? 1 : 0)) +
                            lambda * tau * (h[v] - q[v] * sum_h)) /
                               static_cast<double>(s.rows));
    worst = std::max(worst, gradient.value());
    const auto relative = [&](int what, double want) {
      const float value = statistics[static_cast<std::size_t>(what * s.rows + i)];
      return std::abs(static_cast<double>(value) - want) / std::max(1e-3, std::abs(want));
    };
    worst = std::max(worst, relative(kernels::kStatCe, -std::log(q1[target])));
    worst = std::max(worst, relative(kernels::kStatKd, tau * tau * d));
  }
  return worst;
}

void run_fused(const Problem& p, const Setting& s, const Case& c) {
  kernels::DistillLossArgs a;
  a.student = p.student.raw(), a.teacher = p.teacher.raw(), a.dstudent = p.gradient.raw();
  a.student_pitch = a.teacher_pitch = a.dstudent_pitch = s.classes;
  a.targets = p.targets.data<std::int32_t>();
  a.lambda = p.lambda.data<float>();
  a.temperature = p.tau.data<float>();
  a.normalizer = p.z.data<float>();
  a.total = p.total.raw();
  a.statistics = p.statistics.data<float>();
  a.argmax = p.argmax.data<std::int32_t>();
  a.correct = p.correct.data<std::uint8_t>();
  a.rows = s.rows, a.classes = s.classes, a.dtype = c.dtype;
  a.divergence = s.divergence, a.parameter = kernels::default_parameter(s.divergence);
  kernels::distill_loss(kernel_context(c.device), a);
}

// Hinton's loss as users write it, the labels as one-hot rows that are made at the first call.
void run_plain_chain(Problem& p, const Setting& s) {
  if (!p.one_hot.defined()) {
    const Tensor host = Tensor::zeros({s.rows, s.classes}, p.leaf.dtype());
    const std::vector<std::int32_t> y = p.targets.to_vector<std::int32_t>();
    for (std::size_t i = 0; i < y.size(); ++i) {
      const auto row = static_cast<std::int64_t>(i);
      host.slice(row, row + 1).view({s.classes}).slice(y[i], y[i] + 1).fill(1);
    }
    p.one_hot = host.to(p.leaf.device());
  }
  const double n = static_cast<double>(s.rows);
  const Tensor log_p = log_softmax(scale(p.teacher, 1 / s.tau));
  const Tensor log_q = log_softmax(scale(p.leaf, 1 / s.tau));
  const Tensor kd = sum(multiply(exp(log_p), subtract(log_p, log_q)));
  const Tensor ce = negate(sum(multiply(log_softmax(p.leaf), p.one_hot)));
  add(scale(ce, 0.5 / n), scale(kd, 0.5 * s.tau * s.tau / n)).backward();
  p.leaf.zero_grad();
}

Work make(const Setting& s, const Case& c) {
  auto p = std::make_shared<Problem>();
  p->student = normal({s.rows, s.classes}, c.seed, c.dtype, c.device, 3);
  p->teacher = normal({s.rows, s.classes}, c.seed + 1000, c.dtype, c.device, 3);
  p->targets = integers(s.rows, c.seed, s.classes, c.device);
  p->lambda = Tensor::scalar(0.5, DType::kF32, c.device);
  p->tau = Tensor::scalar(s.tau, DType::kF32, c.device);
  p->z = Tensor::scalar(static_cast<double>(s.rows), DType::kF32, c.device);
  p->gradient = Tensor::empty({s.rows, s.classes}, c.dtype, c.device);
  p->total = Tensor::empty({}, DType::kF32, c.device);
  p->statistics = Tensor::empty({kernels::kRowStatistics, s.rows}, DType::kF32, c.device);
  p->argmax = Tensor::empty({2, s.rows}, DType::kI32, c.device);
  p->correct = Tensor::empty({2, s.rows}, DType::kU8, c.device);
  p->leaf = p->student.detach();
  p->leaf.set_requires_grad(true);
  Work w;
  w.run = [=] { run_fused(*p, s, c); };
  if (s.rows * s.classes > kMostChained) {
    // No chain: bench/peers times PyTorch's.
  } else if (s.divergence == Divergence::kForwardKl) {
    w.composed = [=] { run_plain_chain(*p, s); };
  } else {
    w.composed = [=] {
      distill::DistillationLossArgs a;
      a.student_logits = p->leaf, a.teacher_logits = p->teacher, a.targets = p->targets;
      a.lambda = p->lambda, a.temperature = p->tau, a.divergence = s.divergence;
      distillation_loss_composed(a).total.backward();
      p->leaf.zero_grad();
    };
  }
  w.outputs = [=] {
    return std::vector<Tensor>{p->gradient, p->total, p->statistics, p->argmax, p->correct};
  };
  w.error = [=] { return error_of(*p, s); };
  w.digest = [=] { return std::vector<double>{p->total.item(), norm_of(p->gradient)}; };
  w.exports = [=] {
    return NamedTensors{{"student", p->student.to(Device::kCpu)},
                        {"teacher", p->teacher.to(Device::kCpu)},
                        {"targets", p->targets.to(Device::kCpu)}};
  };
  return w;
}

// Operations per logit by the formulas, an exponential counted as one like an addition: three
// softmaxes (maximum, difference, scaling, exponential, sum, division: 6 each, 5 at tau 1), the
// divergence and h (below), and the gradient with its two terms (6).
double flops_per_logit(Divergence kind) {
  constexpr double divergence_and_h[] = {4, 5, 13, 4, 9, 9};
  return 17 + divergence_and_h[static_cast<int>(kind)] + 6;
}

void add(Plan& plan, const Setting& s, DType dtype) {
  Case c;
  c.name = std::string("distill_loss/") + name_of(s.divergence) +
           (s.tau == 2 ? "/" : "_tau" + std::to_string(static_cast<int>(s.tau)) + "/") +
           shape_name(s.rows, s.classes);
  c.dtype = dtype;
  // CE counts relative to itself from 1e-3 up, and log(1 + 1e-3) in f32 is off by 6e-5 of that.
  if (dtype == DType::kF32) c.error_bound = 1e-4;
  const double logits = static_cast<double>(s.rows * s.classes);
  c.bytes = 3 * logits * static_cast<double>(size_of(dtype));  // both read, the gradient written
  c.working_set = c.bytes;
  c.flops = flops_per_logit(s.divergence) * logits;
  c.goal = plan.device == Device::kCuda && s.rows == 8192 && s.classes > 30000 && s.tau == 2 &&
           s.divergence == Divergence::kForwardKl && dtype == DType::kBF16;
  c.make = [s](const Case& made) { return make(s, made); };
  plan.add(std::move(c));
}

}  // namespace

void add_distill_loss_cases(Plan& plan) {
  const std::vector<DType> dtypes{DType::kF32, DType::kBF16};
  std::vector<std::pair<std::int64_t, std::int64_t>> shapes{{3, 10}, {2, 1100}};
  if (!plan.smoke && plan.device == Device::kCpu)
    shapes = {{128, 10}, {1024, 10}, {128, 100}, {1024, 100}, {1024, 1000}, {1024, 28996}};
  if (!plan.smoke && plan.device == Device::kCuda)
    shapes = {{65536, 10},   {65536, 100},  {65536, 1000},  {8192, 28996},
              {8192, 30522}, {8192, 50257}, {2048, 128256}, {8192, 128256}};
  for (const auto& [rows, classes] : shapes)
    for (const DType dtype : dtypes)
      for (int d = 0; d < kernels::kDivergences; ++d) {
        if (rows * classes > kMostChained && dtype == DType::kF32)
          continue;  // the goals are bf16's
        add(plan, {rows, classes, static_cast<Divergence>(d), 2}, dtype);
        // A temperature that is no power of two takes one exponential more.
        if (d == 0 && classes > 10) add(plan, {rows, classes, Divergence::kForwardKl, 3}, dtype);
      }
}

}  // namespace retort::bench
