// The numbers of one step, summed over its rows into a row that the host reads later.
#include "kernels/step_statistics/step_statistics.h"
#include "bench/cases/cases.h"
#include "bench/cases/inputs.h"
#include "bench/harness/session.h"
#include "engine/autograd/autograd.h"
#include "engine/ops/reduce.h"

namespace retort::bench {
namespace {

Work make(std::int64_t n, const Case& c) {
  const auto flags = [&](std::uint64_t seed) {
    return integers(n, c.seed + seed, 2, Device::kCpu).to(DType::kU8).to(c.device);
  };
  const Tensor loss = Tensor::scalar(0.75, DType::kF32, c.device),
               ce = normal({n}, c.seed, DType::kF32, c.device, 1, 2),
               kd = normal({n}, c.seed + 1, DType::kF32, c.device, 1, 2),
               // Rows of 0 were ignored by the loss.
      confidence = integers(n, c.seed + 2, 4, Device::kCpu).to(DType::kF32).to(c.device),
               correct = flags(3), teacher_correct = flags(4),
               numbers = Tensor::empty({kernels::kStepNumbers}, DType::kF64, c.device);
  Work w;
  w.run = [=] {
    kernels::StepStatisticsArgs a;
    a.loss = loss.raw();
    a.ce = ce.data<float>(), a.kd = kd.data<float>(), a.confidence = confidence.data<float>();
    a.correct = correct.data<std::uint8_t>();
    a.teacher_correct = teacher_correct.data<std::uint8_t>();
    a.numbers = numbers.data<double>(), a.rows = n;
    kernels::step_statistics(kernel_context(c.device), a);
  };
  w.composed = [=] {  // without the count of samples, which no plain op here gives
    const NoGrad no_grad;
    for (const Tensor& t : {ce, kd}) static_cast<void>(sum(t));
    for (const Tensor& t : {correct, teacher_correct}) static_cast<void>(sum(t.to(DType::kF32)));
  };
  w.outputs = [=] { return std::vector<Tensor>{numbers}; };
  w.error = [=] {
    double want[kernels::kStepNumbers] = {0.75};
    const auto add = [&](kernels::StepNumber which, const Tensor& t) {
      for (const double v : t.to_vector<double>()) want[which] += v;
    };
    add(kernels::kStepCe, ce);
    add(kernels::kStepKd, kd);
    add(kernels::kStepCorrect, correct);
    add(kernels::kStepTeacherCorrect, teacher_correct);
    for (const double v : confidence.to_vector<double>()) want[kernels::kStepSamples] += v != 0;
    const std::vector<double> got = numbers.to_vector<double>();
    double worst = 0;
    for (std::size_t k = 0; k < got.size(); ++k)
      worst = worse(worst, relative_error(got[k], want[k]));
    return worst;
  };
  return w;
}

}  // namespace

void add_step_statistics_cases(Plan& plan) {
  for (const std::int64_t n :
       plan.pick<std::vector<std::int64_t>>({37}, {128, 1024, 65536}, {1024, 65536}))
    // Three floats and two flags a row; 5 sums.
    plan.add("step_statistics/" + shape_name(n), DType::kF32,
             14 * static_cast<double>(n) + 8 * kernels::kStepNumbers, 5 * static_cast<double>(n),
             [=](const Case& c) { return make(n, c); });
}

}  // namespace retort::bench
