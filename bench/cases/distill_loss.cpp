// The fused distillation loss, forward and gradient in one call with all statistics, beside the
// chain of plain ops that defines it.
#include <limits>
#include <memory>

#include "bench/cases/cases.h"
#include "bench/cases/inputs.h"
#include "bench/cases/loss_chain.h"
#include "bench/harness/session.h"
#include "kernels/distill_loss/distill_loss_composed.h"

namespace retort::bench {
namespace {

using kernels::Divergence;

// Logits above which the chain's many tensors might not fit beside the case.
constexpr std::int64_t kMostChained = std::int64_t{1} << 29;

// Which of its inputs the loss has: both sets of logits and one lambda and temperature for all
// rows; no teacher; lambda, temperature and weight of each row's own, and a third of the rows
// masked.
enum class Inputs { kShared, kLabels, kPerRow };

struct Setting {
  std::int64_t rows, classes;
  Divergence divergence;
  double tau;
  Inputs inputs = Inputs::kShared;
};

struct Problem {
  Tensor student, teacher, targets, lambda, tau, weights, mask, z;  // inputs
  Tensor gradient, total, statistics, argmax, correct;              // outputs
  LossChain chain;
};

bool counts(const Setting& s, std::int64_t row) {
  return s.inputs != Inputs::kPerRow || row % 3 != 1;
}
std::int64_t counted_rows(const Setting& s) {
  return s.inputs == Inputs::kPerRow ? s.rows - (s.rows + 1) / 3 : s.rows;
}

// What the definition is told of each row; c is 0 of one that does not count.
std::vector<kernels::DistillRowSettings> rows_of(const Problem& p, const Setting& s) {
  const auto values = [](const Tensor& t) {
    return t.defined() ? t.to_vector<double>() : std::vector<double>();
  };
  const auto at = [](const std::vector<double>& v, std::size_t i, double otherwise) {
    return v.empty() ? otherwise : v[v.size() == 1 ? 0 : i];
  };
  const std::vector<double> lambda = values(p.lambda), tau = values(p.tau),
                            weights = values(p.weights);
  const std::vector<std::int32_t> targets = p.targets.to_vector<std::int32_t>();
  std::vector<kernels::DistillRowSettings> rows(static_cast<std::size_t>(s.rows));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i] = {at(lambda, i, 0),
               at(tau, i, 1),
               0,
               s.divergence,
               kernels::default_parameter(s.divergence),
               static_cast<std::size_t>(targets[i])};
    if (counts(s, static_cast<std::int64_t>(i)))
      rows[i].c = at(weights, i, 1) / static_cast<double>(counted_rows(s));
  }
  return rows;
}

// Worst of the gradient (as a share of the row's largest) and of all statistics (relative_error),
// over up to 20,000 logits of rows spread over the batch; infinite for a wrong argmax. The total is
// held against the sum of all rows' CE and D as the kernel gives them, which were sampled above.
double error_of(const Problem& p, const Setting& s) {
  const std::vector<std::int32_t> argmax = p.argmax.to_vector<std::int32_t>();
  const std::vector<std::uint8_t> correct = p.correct.to_vector<std::uint8_t>();
  const std::vector<float> statistics = p.statistics.to_vector<float>();
  const auto statistic = [&](int what, std::size_t i) {
    return static_cast<double>(statistics[static_cast<std::size_t>(what * s.rows) + i]);
  };
  const std::vector<kernels::DistillRowSettings> all = rows_of(p, s);
  double worst = 0;
  for (const std::int64_t i : sampled(s.rows, std::max<std::int64_t>(2, 20000 / s.classes))) {
    const auto ii = static_cast<std::size_t>(i);
    const auto values = [&](const Tensor& t) {
      return t.defined() ? t.slice(i, i + 1).to_vector<double>() : std::vector<double>();
    };
    kernels::DistillRow r;
    if (counts(s, i))
      r = kernels::distill_row_composed(all[ii], values(p.student), values(p.teacher));
    else
      r.gradient.assign(static_cast<std::size_t>(s.classes), 0);
    Error64 gradient;
    const std::vector<double> got = values(p.gradient);
    for (std::size_t v = 0; v < got.size(); ++v) gradient.add(got[v], r.gradient[v]);
    worst = worse(worst, gradient.value());
    for (int k = 0; k < kernels::kRowStatistics; ++k)
      worst =
          worse(worst, relative_error(statistic(k, ii), r.statistics[static_cast<std::size_t>(k)]));
    if (!counts(s, i)) continue;
    for (std::size_t who = 0; who < (p.teacher.defined() ? 2u : 1u); ++who) {
      const std::size_t at = who * static_cast<std::size_t>(s.rows) + ii;
      const int best = who == 0 ? r.argmax_student : r.argmax_teacher;
      if (argmax[at] != best ||
          correct[at] != (static_cast<std::size_t>(best) == all[ii].target ? 1 : 0))
        worst = worse(worst, std::numeric_limits<double>::infinity());
    }
  }
  double total = 0;
  for (std::size_t i = 0; i < all.size(); ++i)
    total += all[i].c * ((1 - all[i].lambda) * statistic(kernels::kStatCe, i) +
                         all[i].lambda * statistic(kernels::kStatKd, i));
  return worse(worst, relative_error(p.total.item(), total));
}

void run_fused(const Problem& p, const Setting& s, const Case& c) {
  kernels::DistillLossArgs a;
  a.student = p.student.raw(), a.dstudent = p.gradient.raw();
  a.student_pitch = a.teacher_pitch = a.dstudent_pitch = s.classes;
  a.targets = p.targets.data<std::int32_t>();
  if (p.teacher.defined()) {
    a.teacher = p.teacher.raw();
    a.lambda = p.lambda.data<float>();
    a.temperature = p.tau.data<float>();
  }
  if (s.inputs == Inputs::kPerRow) {
    a.lambda_stride = a.temperature_stride = a.weights_stride = 1;
    a.weights = p.weights.data<float>();
    a.mask = p.mask.data<std::uint8_t>();
  } else {
    a.normalizer = p.z.data<float>();
  }
  a.total = p.total.raw();
  a.statistics = p.statistics.data<float>();
  a.argmax = p.argmax.data<std::int32_t>();
  a.correct = p.correct.data<std::uint8_t>();
  a.rows = s.rows, a.classes = s.classes, a.dtype = c.dtype;
  a.divergence = s.divergence, a.parameter = kernels::default_parameter(s.divergence);
  kernels::distill_loss(kernel_context(c.device), a);
}

void make_per_row(Problem& p, const Setting& s, const Case& c) {
  std::vector<float> lambda, tau, weights;
  std::vector<std::uint8_t> mask;
  for (std::int64_t i = 0; i < s.rows; ++i) {
    lambda.push_back(static_cast<float>(i % 5) / 4);
    tau.push_back(static_cast<float>(1 + i % 4));
    weights.push_back(0.5f + static_cast<float>(i % 7) / 7);
    mask.push_back(counts(s, i) ? 1 : 0);
  }
  p.lambda = Tensor::from(lambda, {s.rows}, c.device);
  p.tau = Tensor::from(tau, {s.rows}, c.device);
  p.weights = Tensor::from(weights, {s.rows}, c.device);
  p.mask = Tensor::from(mask, {s.rows}, c.device);
}

Work make(const Setting& s, const Case& c) {
  auto p = std::make_shared<Problem>();
  p->student = normal({s.rows, s.classes}, c.seed, c.dtype, c.device, 3);
  p->targets = integers(s.rows, c.seed, s.classes, c.device);
  if (s.inputs != Inputs::kLabels)
    p->teacher = normal({s.rows, s.classes}, c.seed + 1000, c.dtype, c.device, 3);
  if (s.inputs == Inputs::kShared) {
    p->lambda = Tensor::scalar(0.5, DType::kF32, c.device);
    p->tau = Tensor::scalar(s.tau, DType::kF32, c.device);
  }
  if (s.inputs == Inputs::kPerRow) make_per_row(*p, s, c);
  p->z = Tensor::scalar(static_cast<double>(s.rows), DType::kF32, c.device);
  p->gradient = Tensor::empty({s.rows, s.classes}, c.dtype, c.device);
  p->total = Tensor::empty({}, DType::kF32, c.device);
  p->statistics = Tensor::empty({kernels::kRowStatistics, s.rows}, DType::kF32, c.device);
  p->argmax = Tensor::empty({2, s.rows}, DType::kI32, c.device);
  p->correct = Tensor::empty({2, s.rows}, DType::kU8, c.device);
  Work w;
  w.run = [=] { run_fused(*p, s, c); };
  // Too large, bench/peers times PyTorch's. With numbers per row plain ops have no way to spread
  // them over the classes but matrices made on the host.
  if (s.rows * s.classes <= kMostChained && s.inputs != Inputs::kPerRow) {
    w.prepare_composed = [=] {
      Tensor leaf = p->student.detach();
      leaf.set_requires_grad(true);
      p->chain = {leaf, p->teacher, one_hot_rows(p->targets, leaf), s.divergence, s.tau, 0.5};
    };
    w.composed = [=] {
      loss_chain(p->chain).backward();
      p->chain.student.zero_grad();
    };
  }
  w.outputs = [=] {
    return std::vector<Tensor>{p->gradient, p->total, p->statistics, p->argmax, p->correct};
  };
  w.error = [=] { return error_of(*p, s); };
  w.digest = [=] { return std::vector<double>{p->total.item(), norm_of(p->gradient)}; };
  if (s.inputs != Inputs::kShared) return w;
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

// A row's target, ten statistics, two argmax and two correct; lambda, temperature, weight and mask.
double row_bytes(const Setting& s) {
  return 4 + 4 * kernels::kRowStatistics + 2 * 4 + 2 + (s.inputs == Inputs::kPerRow ? 13 : 0);
}

std::string name_of(const Setting& s) {
  if (s.inputs == Inputs::kLabels) return "distill_loss_labels/";
  if (s.inputs == Inputs::kPerRow) return "distill_loss_per_row/";
  return std::string("distill_loss/") + name_of(s.divergence) +
         (s.tau == 2 ? "/" : "_tau" + std::to_string(static_cast<int>(s.tau)) + "/");
}

void add(Plan& plan, const Setting& s, DType dtype) {
  Case c;
  c.name = name_of(s) + shape_name(s.rows, s.classes);
  c.dtype = dtype;
  // CE counts relative to itself from 1e-3 up, and log(1 + 1e-3) in f32 is off by 6e-5 of that.
  if (dtype == DType::kF32) c.error_bound = 1e-4;
  const double logits = static_cast<double>(s.rows * s.classes),
               counted = static_cast<double>(counted_rows(s) * s.classes);
  const bool labels = s.inputs == Inputs::kLabels;
  // The logits of rows that count are read, the gradient is written.
  c.bytes = ((labels ? 1 : 2) * counted + logits) * static_cast<double>(size_of(dtype)) +
            row_bytes(s) * static_cast<double>(s.rows);
  c.working_set = c.bytes;
  c.flops = labels ? 7 * logits  // a softmax at tau 1, the gradient's term
                   : flops_per_logit(s.divergence) * counted;
  c.goal = plan.device == Device::kCuda && s.rows == 8192 && s.classes > 30000 && s.tau == 2 &&
           s.divergence == Divergence::kForwardKl && s.inputs == Inputs::kShared &&
           dtype == DType::kBF16;
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
        if (d == 0 && classes >= 1000 && classes < 50000)
          for (const Inputs inputs : {Inputs::kLabels, Inputs::kPerRow})
            add(plan, {rows, classes, Divergence::kForwardKl, 2, inputs}, dtype);
      }
}

}  // namespace retort::bench
