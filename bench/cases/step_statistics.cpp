// The numbers of one step, summed over its rows into a row that the host reads later.
#include "kernels/step_statistics/step_statistics.h"
#include "bench/cases/cases.h"
#include "bench/cases/inputs.h"
#include "bench/harness/session.h"
#include "engine/autograd/autograd.h"
#include "engine/ops/reduce.h"

namespace retort::bench {
namespace {

// What a distillation step sums: its loss, two floats and two flags a row, and which rows count.
constexpr int kNumbers = 6;

Work make(std::int64_t n, const Case& c) {
  const auto flags = [&](std::uint64_t seed) {
    return integers(n, c.seed + seed, 2, Device::kCpu).to(DType::kU8).to(c.device);
  };
  const Tensor loss = Tensor::scalar(0.75, DType::kF32, c.device),
               ce = normal({n}, c.seed, DType::kF32, c.device, 1, 2),
               kd = normal({n}, c.seed + 1, DType::kF32, c.device, 1, 2),
               targets = integers(n, c.seed + 2, 4, c.device), correct = flags(3),
               teacher_correct = flags(4),
               numbers = Tensor::empty({kNumbers}, DType::kF64, c.device);
  constexpr std::int32_t kIgnored = 0;
  Work w;
  w.run = [=] {
    using kernels::StepColumn;
    kernels::StepStatisticsArgs a;
    a.push(StepColumn::value(loss.data<float>()));
    for (const Tensor& t : {ce, kd}) a.push(StepColumn::sum(t.data<float>()));
    for (const Tensor& t : {correct, teacher_correct})
      a.push(StepColumn::sum(t.data<std::uint8_t>()));
    a.push(StepColumn::count(targets.data<std::int32_t>(), nullptr, kIgnored));
    a.numbers = numbers.data<double>(), a.pitch = kNumbers, a.rows = n;
    kernels::step_statistics(kernel_context(c.device), a);
  };
  w.composed = [=] {  // without the count of samples, which no plain op here gives
    const NoGrad no_grad;
    for (const Tensor& t : {ce, kd}) static_cast<void>(sum(t));
    for (const Tensor& t : {correct, teacher_correct}) static_cast<void>(sum(t.to(DType::kF32)));
  };
  w.outputs = [=] { return std::vector<Tensor>{numbers}; };
  w.error = [=] {
    std::vector<double> want{0.75};
    for (const Tensor& t : {ce, kd, correct, teacher_correct}) {
      want.push_back(0);
      for (const double v : t.to_vector<double>()) want.back() += v;
    }
    want.push_back(0);
    for (const std::int32_t y : targets.to_vector<std::int32_t>()) want.back() += y != kIgnored;
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
    // Two floats, a target and two flags a row; 5 sums.
    plan.add("step_statistics/" + shape_name(n), DType::kF32,
             14 * static_cast<double>(n) + 8 * kNumbers, 5 * static_cast<double>(n),
             [=](const Case& c) { return make(n, c); });
}

}  // namespace retort::bench
