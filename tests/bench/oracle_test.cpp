// What cases judge results by: no NaN is lost, and every output is looked at.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "bench/cases/cases.h"
#include "bench/cases/inputs.h"
#include "bench/cases/loss_chain.h"
#include "bench/harness/session.h"
#include "distill/losses/distillation_loss.h"

namespace retort::bench {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN(),
                 kInfinity = std::numeric_limits<double>::infinity();

TEST(Oracle, a_nan_stays_whatever_comes_after_it) {
  EXPECT_TRUE(std::isnan(worse(kNan, 1)));
  EXPECT_TRUE(std::isnan(worse(1, kNan)));
  EXPECT_EQ(worse(1, 2), 2);
  EXPECT_EQ(worse(2, 1), 2);
  Error64 got_nan;
  got_nan.add(1, 1);
  got_nan.add(kNan, 1);
  got_nan.add(1, 1);
  got_nan.add(1.5, 1);
  EXPECT_TRUE(std::isnan(got_nan.value()));
  EXPECT_TRUE(std::isnan(relative_error(kNan, 1)));
}

TEST(Oracle, infinities_agree_with_themselves_alone) {
  Error64 same;
  same.add(kInfinity, kInfinity);
  same.add(kNan, kNan);
  same.add(1.5, 1);
  EXPECT_EQ(same.value(), 0.5);  // of the largest finite one
  Error64 other;
  other.add(1, 1);
  other.add(-kInfinity, kInfinity);
  EXPECT_EQ(other.value(), kInfinity);
}

// Makes, runs, and gives the error after `spoil` has seen the outputs.
template <class F>
double error_after(const Case& c, F&& spoil) {
  Work w = c.make(c);
  w.run();
  spoil(w.outputs());
  return w.error();
}

// At toy sizes a sample is all there is.
TEST(Oracle, every_output_of_every_case_is_looked_at) {
  int judged = 0;
  for (const Case& c : all_cases(Device::kCpu, true).cases) {
    SCOPED_TRACE(c.full_name());
    const Work w = c.make(c);
    ASSERT_TRUE(w.outputs);
    if (c.step && !w.error) continue;  // training: its update is chaotic in the last bits
    ASSERT_TRUE(w.error);
    EXPECT_LT(error_after(c, [](const auto&) {}), 0.03);
    ++judged;
    for (std::size_t k = 0; k < w.outputs().size() || k == 0; ++k) {
      const double error = error_after(c, [&](const std::vector<Tensor>& outputs) {
        ASSERT_LT(k, outputs.size());
        outputs[k].detach().fill(is_floating(outputs[k].dtype()) ? 1e4 : 77);
      });
      EXPECT_FALSE(error < 0.5) << "output " << k;
    }
  }
  EXPECT_GT(judged, 100);
}

TEST(Oracle, every_statistic_of_the_loss_is_looked_at) {
  int judged = 0;
  for (const Case& c : all_cases(Device::kCpu, true).cases) {
    if (c.name.rfind("distill_loss", 0) != 0) continue;
    SCOPED_TRACE(c.full_name());
    ++judged;
    for (std::int64_t k = 0; k < kernels::kRowStatistics; ++k)
      EXPECT_FALSE(error_after(c,
                               [k](const std::vector<Tensor>& outputs) {
                                 outputs[2].slice(k, k + 1).fill(1e4);
                               }) < 0.5)
          << "statistic " << k;
  }
  EXPECT_GT(judged, 12);
}

// A run leaves nothing of an output alone, whoever the kernel: what a fill of other bytes shows.
TEST(Oracle, a_result_that_is_not_written_shows_as_an_error_of_nan) {
  Case c;
  c.name = "half";
  c.make = [](const Case&) {
    const Tensor y = Tensor::zeros({8}, DType::kF32, Device::kCpu);
    Work w;
    w.run = [=] { y.slice(0, 4).fill(0); };
    w.outputs = [=] { return std::vector<Tensor>{y}; };
    w.error = [=] {
      Error64 e;
      for (const double v : y.to_vector<double>()) e.add(v, 0);
      return e.value();
    };
    return w;
  };
  const Facts facts = Session(c, true).facts();
  EXPECT_TRUE(std::isnan(facts.max_error));
  EXPECT_FALSE(facts.hash_equal);
}

TEST(LossChain, is_the_loss_that_the_kernel_computes) {
  const std::int64_t rows = 5, classes = 7;
  Tensor student = normal({rows, classes}, 1, DType::kF32, Device::kCpu, 3),
         leaf = student.detach();
  const Tensor teacher = normal({rows, classes}, 2, DType::kF32, Device::kCpu, 3),
               targets = integers(rows, 3, classes, Device::kCpu);
  student.set_requires_grad(true);
  leaf.set_requires_grad(true);
  for (int d = -1; d < kernels::kDivergences; ++d) {  // -1: labels alone
    SCOPED_TRACE(d);
    distill::DistillationLossArgs a;
    a.student_logits = student, a.targets = targets;
    LossChain chain{leaf, {}, one_hot_rows(targets, leaf)};
    if (d >= 0) {
      a.teacher_logits = chain.teacher = teacher;
      a.lambda = Tensor::scalar(0.25, DType::kF32, Device::kCpu);
      a.temperature = Tensor::scalar(3, DType::kF32, Device::kCpu);
      a.divergence = chain.divergence = static_cast<kernels::Divergence>(d);
      chain.lambda = 0.25, chain.tau = 3;
    }
    const distill::DistillationLossResult fused = distill::distillation_loss(a);
    const Tensor composed = loss_chain(chain);
    EXPECT_NEAR(composed.item(), fused.total.item(), 1e-5);
    student.zero_grad();
    leaf.zero_grad();
    fused.total.backward();
    composed.backward();
    const std::vector<double> want = student.grad().to_vector<double>(),
                              got = leaf.grad().to_vector<double>();
    for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-6);
  }
}

}  // namespace
}  // namespace retort::bench
