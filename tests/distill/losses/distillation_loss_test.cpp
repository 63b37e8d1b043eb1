#include "distill/losses/distillation_loss.h"

#include <gtest/gtest.h>

#include <limits>

#include "engine/autograd/gradcheck.h"
#include "engine/ops/elementwise.h"
#include "engine/runtime/allocator.h"
#include "kernels/common/parallel.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using distill::distillation_loss;
using distill::distillation_loss_composed;
using distill::DistillationLossArgs;
using distill::DistillationLossResult;
using kernels::Divergence;

constexpr float kInf = std::numeric_limits<float>::infinity();

// f64 is for the CPU alone.
std::vector<DType> dtypes(Device device) {
  if (device == Device::kCuda) return {DType::kF32, DType::kBF16};
  return {DType::kF64, DType::kF32, DType::kBF16};
}

std::vector<Divergence> divergences() {
  std::vector<Divergence> list;
  for (int d = 0; d < kernels::kDivergences; ++d) list.push_back(static_cast<Divergence>(d));
  return list;
}

DistillationLossArgs to(DistillationLossArgs a, Device device, DType dtype) {
  for (Tensor* t : {&a.student_logits, &a.teacher_logits})
    if (t->defined()) *t = t->to(dtype).to(device);
  for (Tensor* t : {&a.targets, &a.lambda, &a.temperature, &a.mask, &a.weights, &a.sample_of_row,
                    &a.normalizer})
    if (t->defined()) *t = t->to(device);
  return a;
}

// Everything given per row: six rows of five classes, row 2 masked, row 3 ignored, one row of
// labels alone (lambda 0) and one of the teacher alone (lambda 1).
DistillationLossArgs per_row_args(const std::vector<float>& tau) {
  DistillationLossArgs a;
  a.student_logits = randn({6, 5}, 1, DType::kF64, 2);
  a.teacher_logits = randn({6, 5}, 2, DType::kF64, 2);
  a.targets = Tensor::from<std::int32_t>({0, 4, 2, -100, 1, 3}, {6});
  a.lambda = Tensor::from<float>({0.1f, 0.9f, 0.5f, 0.5f, 0, 1}, {6});
  a.temperature = Tensor::from(tau, {static_cast<std::int64_t>(tau.size())});
  a.mask = Tensor::from<std::uint8_t>({1, 1, 0, 1, 1, 1}, {6});
  a.weights = Tensor::from<float>({1, 0.5f, 3, 1, 2, 0.25f}, {6});
  return a;
}

const std::vector<std::vector<float>>& temperatures() {
  static const std::vector<std::vector<float>> list{
      {1, 1, 1, 1, 1, 1}, {2, 2, 2, 2, 2, 2}, {4, 4, 4, 4, 4, 4}, {1, 2, 4, 1, 0.5f, 8}, {3}};
  return list;
}

Tensor composed(const DistillationLossArgs& a) {
  return distillation_loss_composed(to(a, Device::kCpu, DType::kF32)).total;
}

// -- hand-checked numbers ----------------------------------------------------------------------

TEST(DistillationLoss, hand_checked_numbers) {
  const float l3 = std::log(3.0f);
  for (const Device device : devices()) {
    DistillationLossArgs a;
    a.student_logits = Tensor::from<float>({0, l3}, {1, 2}, device);
    a.student_logits.set_requires_grad(true);
    a.teacher_logits = Tensor::from<float>({2 * l3, 0}, {1, 2}, device);
    a.targets = Tensor::from<std::int32_t>({0}, {1}, device);
    a.lambda = Tensor::scalar(0.25, DType::kF32, device);
    a.temperature = Tensor::scalar(2, DType::kF32, device);
    const DistillationLossResult r = distillation_loss(a);
    const double q = 1 / (1 + std::sqrt(3.0));
    const double kl = 0.75 * std::log(0.75 / q) + 0.25 * std::log(0.25 / (1 - q));
    EXPECT_NEAR(r.total.item(), 0.75 * std::log(4.0) + 0.25 * 4 * kl, 1e-6) << name_of(device);
    EXPECT_NEAR(r.ce.item(), std::log(4.0), 1e-6);
    EXPECT_NEAR(r.kd.item(), 4 * kl, 1e-6);
    EXPECT_NEAR(r.student_confidence.item(), 0.75, 1e-6);
    EXPECT_NEAR(r.teacher_confidence.item(), 0.9, 1e-6);
    EXPECT_NEAR(r.teacher_log_confidence.item(), std::log(0.9), 1e-6);
    EXPECT_NEAR(r.teacher_max_logit.item(), 2 * l3, 1e-6);
    EXPECT_NEAR(r.teacher_margin.item(), 0.8, 1e-6);
    EXPECT_NEAR(r.teacher_entropy.item(), -0.9 * std::log(0.9) - 0.1 * std::log(0.1), 1e-6);
    EXPECT_NEAR(r.teacher_p_true.item(), 0.9, 1e-6);
    EXPECT_NEAR(r.teacher_log_p_true.item(), std::log(0.9), 1e-6);
    EXPECT_EQ(r.student_argmax.item(), 1);
    EXPECT_EQ(r.student_correct.item(), 0);
    EXPECT_EQ(r.teacher_argmax.item(), 0);
    EXPECT_EQ(r.teacher_correct.item(), 1);
    EXPECT_EQ(r.invalid_row.item(), 0);
    r.total.backward();
    const double g = 0.75 * (0.25 - 1) + 0.25 * 2 * (q - 0.75);
    const std::vector<double> ds = a.student_logits.grad().to_vector<double>();
    EXPECT_NEAR(ds[0], g, 1e-6);
    EXPECT_NEAR(ds[1], -g, 1e-6);
  }
}

TEST(DistillationLoss, of_a_distribution_with_itself_is_exactly_zero) {
  for (const Device device : devices())
    for (const double shift : {0.0, 90.0}) {
      DistillationLossArgs a;
      a.student_logits = randn({5, 300}, 3, DType::kF32, 4, shift).to(device);
      a.teacher_logits = a.student_logits.detach();
      a.temperature = Tensor::from<float>({1, 2, 3, 4, 0.5f}, {5}, device);
      const DistillationLossResult r = distillation_loss(a);
      EXPECT_EQ(r.total.item(), 0) << name_of(device);
      for (const double kd : r.kd.to_vector<double>()) EXPECT_EQ(kd, 0) << name_of(device);
    }
}

// -- fused against composed --------------------------------------------------------------------

TEST(DistillationLoss, equals_the_composed_definition) {
  for (const Device device : devices())
    for (const DType dtype : dtypes(device))
      for (const Divergence divergence : divergences())
        for (const std::vector<float>& tau : temperatures()) {
          if (dtype == DType::kBF16) continue;  // judged against double elsewhere
          DistillationLossArgs a = to(per_row_args(tau), Device::kCpu, dtype);
          a.divergence = divergence;
          a.tau_power = tau.size() == 1 ? 0 : -1;  // also another than the divergence's own
          Tensor& s = a.student_logits;
          s.set_requires_grad(true);
          const DistillationLossResult want = distillation_loss_composed(a);
          want.total.backward();
          DistillationLossArgs b = to(a, device, dtype);
          b.student_logits = s.detach().to(device);
          b.student_logits.set_requires_grad(true);
          const DistillationLossResult got = distillation_loss(b);
          got.total.backward();
          EXPECT_TRUE(all_close(got.total, want.total)) << name_of(divergence);
          EXPECT_TRUE(all_close(got.ce, want.ce.to(DType::kF32))) << name_of(divergence);
          EXPECT_TRUE(all_close(got.kd, want.kd.to(DType::kF32))) << name_of(divergence);
          EXPECT_TRUE(all_close(b.student_logits.grad(), s.grad()))
              << name_of(divergence) << " " << name_of(device) << " " << name_of(dtype);
        }
}

TEST(DistillationLoss, one_term_alone) {
  for (const Device device : devices()) {
    const DistillationLossArgs both = to(per_row_args({3}), device, DType::kF32);
    DistillationLossArgs a = both;
    a.teacher_logits = a.lambda = Tensor();
    EXPECT_TRUE(all_close(distillation_loss(a).total, composed(a)));
    EXPECT_EQ(distillation_loss(a).teacher_argmax.to_vector<int>(), std::vector<int>(6, -1));
    a.lambda = Tensor::scalar(0, DType::kF32, device);
    EXPECT_TRUE(all_close(distillation_loss(a).total, composed(a)));
    a = both;
    a.targets = a.lambda = Tensor();
    EXPECT_TRUE(all_close(distillation_loss(a).total, composed(a)));
  }
}

TEST(DistillationLoss, samples_give_their_rows_lambda_temperature_and_weight) {
  for (const Device device : devices()) {
    DistillationLossArgs a = to(per_row_args({1, 2, 3}), device, DType::kF32);
    a.sample_of_row = Tensor::from<std::int32_t>({2, 0, 1, 0, 2, 2}, {6}, device);
    a.lambda = Tensor::from<float>({0.2f, 0.5f, 0.8f}, {3}, device);
    a.weights = Tensor::from<float>({1, 2, 0.5f}, {3}, device);
    DistillationLossArgs b = a;
    b.sample_of_row = Tensor();
    b.lambda = Tensor::from<float>({0.8f, 0.2f, 0.5f, 0.2f, 0.8f, 0.8f}, {6}, device);
    b.temperature = Tensor::from<float>({3, 1, 2, 1, 3, 3}, {6}, device);
    b.weights = Tensor::from<float>({0.5f, 1, 2, 1, 0.5f, 0.5f}, {6}, device);
    EXPECT_TRUE(same_bytes(distillation_loss(a).total, distillation_loss(b).total));
  }
}

TEST(DistillationLoss, a_split_with_the_common_normalizer_adds_up) {
  for (const Device device : devices()) {
    const DistillationLossArgs a = to(per_row_args({2}), device, DType::kF32);
    double total = 0;
    for (const auto& [begin, end] : std::vector<std::pair<int, int>>{{0, 2}, {2, 6}}) {
      DistillationLossArgs part = a;
      for (Tensor* t : {&part.student_logits, &part.teacher_logits, &part.targets, &part.lambda,
                        &part.mask, &part.weights})
        *t = t->slice(begin, end);
      part.normalizer = Tensor::scalar(4, DType::kF32, device);  // rows that count in the whole
      total += distillation_loss(part).total.item();
    }
    EXPECT_NEAR(total, distillation_loss(a).total.item(), 1e-6);
  }
}

// A loss that divided by V, or lost tau^2, would fail these.
TEST(DistillationLoss, classes_without_mass_change_nothing) {
  for (const Device device : devices()) {
    const DistillationLossArgs a = to(per_row_args({2}), device, DType::kF32);
    DistillationLossArgs b = a;
    const auto padded = [&](const Tensor& x) {
      std::vector<float> v = x.to_vector<float>(), w;
      for (std::size_t i = 0; i < 30; ++i) {
        w.push_back(v[i]);
        if (i % 5 == 4) w.insert(w.end(), 4, -kInf);
      }
      return Tensor::from(w, {6, 9}, device);
    };
    b.student_logits = padded(a.student_logits);
    b.teacher_logits = padded(a.teacher_logits);
    EXPECT_TRUE(all_close(distillation_loss(b).total, distillation_loss(a).total));
  }
}

double soft_gradient_at_8_over_1(Divergence divergence, std::int32_t power) {
  double norm[2];
  for (int k = 0; k < 2; ++k) {
    DistillationLossArgs a;
    a.student_logits = randn({4, 10}, 4, DType::kF64, 0.01);
    a.student_logits.set_requires_grad(true);
    a.teacher_logits = randn({4, 10}, 5, DType::kF64, 0.01);
    a.temperature = Tensor::scalar(k == 0 ? 1 : 8);
    a.divergence = divergence;
    a.tau_power = power;
    distillation_loss(a).total.backward();
    norm[k] = 0;
    for (const double g : a.student_logits.grad().to_vector<double>()) norm[k] += g * g;
  }
  return std::sqrt(norm[1] / norm[0]);
}

TEST(DistillationLoss, soft_gradient_keeps_its_size_when_temperature_grows) {
  for (const Divergence divergence : divergences())
    EXPECT_NEAR(soft_gradient_at_8_over_1(divergence, -1), 1, 0.025) << name_of(divergence);
  EXPECT_NEAR(soft_gradient_at_8_over_1(Divergence::kForwardKl, 0), 1.0 / 64, 0.001);
  EXPECT_NEAR(soft_gradient_at_8_over_1(Divergence::kForwardKl, 1), 1.0 / 8, 0.005);
  EXPECT_NEAR(soft_gradient_at_8_over_1(Divergence::kTotalVariation, 2), 8, 0.2);
}

// -- gradient check ----------------------------------------------------------------------------

TEST(DistillationLoss, gradcheck) {
  for (const Divergence divergence : divergences())
    for (const std::vector<float>& tau : temperatures())
      for (const double upstream : {1.0, 2.5}) {
        DistillationLossArgs a = per_row_args(tau);
        a.divergence = divergence;
        const auto f = [&](const std::vector<Tensor>& inputs) {
          DistillationLossArgs b = a;
          b.student_logits = inputs[0];
          return upstream == 1 ? distillation_loss(b).total
                               : scale(distillation_loss(b).total, upstream);
        };
        const GradcheckResult result = gradcheck(f, {a.student_logits}, 1e-6, 1e-8, 1e-6);
        EXPECT_TRUE(result.ok) << name_of(divergence) << ": " << result.message;
      }
}

TEST(DistillationLoss, backward_scales_the_stored_gradient) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      std::vector<Tensor> gradients;
      for (const double upstream : {1.0, 2.0}) {
        DistillationLossArgs a = to(per_row_args({2}), device, dtype);
        a.student_logits.set_requires_grad(true);
        distillation_loss(a).total.backward(Tensor::scalar(upstream, DType::kF32, device));
        gradients.push_back(a.student_logits.grad());
      }
      const std::vector<double> one = gradients[0].to_vector<double>(),
                                two = gradients[1].to_vector<double>();
      for (std::size_t i = 0; i < one.size(); ++i) EXPECT_EQ(2 * one[i], two[i]);
    }
}

TEST(DistillationLoss, per_row_results_are_detached) {
  DistillationLossArgs a = per_row_args({2});
  a.student_logits.set_requires_grad(true);
  const DistillationLossResult r = distillation_loss(a);
  EXPECT_TRUE(r.total.requires_grad());
  EXPECT_FALSE(r.ce.requires_grad());
  EXPECT_FALSE(r.kd.requires_grad());
  EXPECT_FALSE(r.teacher_entropy.requires_grad());
}

// -- writing over the logits -------------------------------------------------------------------

TEST(DistillationLoss, consume_logits_writes_the_gradient_over_them) {
  for (const Device device : devices())
    for (const DType dtype : dtypes(device)) {
      const auto run = [&](bool consume) {
        DistillationLossArgs a = to(per_row_args({2}), device, dtype);
        a.student_logits = a.student_logits.clone();
        a.student_logits.set_requires_grad(true);
        a.consume_logits = consume;
        const void* const memory = a.student_logits.raw();
        const DistillationLossResult r = distillation_loss(a);
        if (consume) {
          EXPECT_THROW(a.student_logits.raw(), Error);
          EXPECT_THROW(a.student_logits.to_vector<double>(), Error);
        } else {
          EXPECT_EQ(a.student_logits.raw(), memory);
        }
        r.total.backward();
        return a.student_logits.grad();
      };
      EXPECT_TRUE(same_bytes(run(true), run(false))) << name_of(device) << " " << name_of(dtype);
    }
}

// A fused op that kept a loss or a probability per logit would fail this.
TEST(DistillationLoss, needs_no_memory_beyond_the_gradient) {
  for (const Device device : devices())
    for (const bool consume : {false, true}) {
      const std::int64_t rows = 16, classes = 3000;
      DistillationLossArgs a;
      a.student_logits = randn({rows, classes}, 21).to(device);
      a.student_logits.set_requires_grad(true);
      a.teacher_logits = randn({rows, classes}, 22).to(device);
      a.temperature = Tensor::scalar(2, DType::kF32, device);
      a.consume_logits = consume;
      reset_peak_memory(device);
      const std::size_t before = memory_statistics(device).current_bytes;
      const DistillationLossResult r = distillation_loss(a);
      const std::size_t used = memory_statistics(device).peak_bytes - before;
      const std::size_t gradient = consume ? 0 : static_cast<std::size_t>(rows * classes) * 4;
      // On the CPU each thread keeps the exponentials of one row, for all calls to come.
      const std::size_t kept = device == Device::kCpu ? static_cast<std::size_t>(thread_count()) *
                                                            (3 * 4 * (classes + 128) + 1024)
                                                      : 0;
      EXPECT_LE(used, gradient + static_cast<std::size_t>(rows) * 256 + 16384 + kept)
          << name_of(device);
    }
}

TEST(DistillationLoss, consume_logits_refuses_shared_logits) {
  DistillationLossArgs a = per_row_args({2});
  a.student_logits.set_requires_grad(true);
  a.consume_logits = true;
  const Tensor other = a.student_logits;
  EXPECT_THROW(distillation_loss(a), Error);
  EXPECT_EQ(other.to_vector<double>().size(), 30u);
}

TEST(DistillationLoss, pitched_logits_and_their_padding) {
  for (const Device device : devices())
    for (const bool consume : {false, true}) {
      const std::int64_t rows = 3, classes = 70;
      const Tensor values = randn({rows, classes}, 7);
      std::vector<float> padded(static_cast<std::size_t>(rows * 128), 1e30f);
      const std::vector<float> v = values.to_vector<float>();
      for (std::size_t i = 0; i < v.size(); ++i) padded[i / 70 * 128 + i % 70] = v[i];
      const Tensor memory = Tensor::from(padded, {rows * 128}, device);
      DistillationLossArgs a;
      a.teacher_logits = randn({rows, classes}, 8).to(device);
      a.temperature = Tensor::scalar(2, DType::kF32, device);
      DistillationLossArgs plain = a;
      plain.student_logits = values.to(device);
      plain.student_logits.set_requires_grad(true);
      a.student_logits = Tensor::wrap(memory.storage(), 0, {rows, classes}, DType::kF32, 128);
      a.student_logits.set_requires_grad(true);
      if (consume) {
        Tensor leaf = Tensor::empty_pitched({rows, classes}, 128, DType::kF32);
        leaf.copy_from(values);
        if (device == Device::kCuda) continue;  // a pitched copy goes through the host
        leaf.set_requires_grad(true);
        a.student_logits = std::move(leaf);
        a.consume_logits = true;
      }
      const DistillationLossResult got = distillation_loss(a), want = distillation_loss(plain);
      EXPECT_TRUE(all_close(got.total, want.total));
      want.total.backward();
      got.total.backward();
      const Tensor g = a.student_logits.grad();
      EXPECT_TRUE(all_close(g, plain.student_logits.grad()));
      if (!consume) {
        EXPECT_EQ(memory.to_vector<float>(), padded) << "the logits' padding was touched";
      }
    }
}

// -- errors ------------------------------------------------------------------------------------

TEST(DistillationLoss, what_does_not_fit_is_refused_by_name) {
  const DistillationLossArgs good = per_row_args({2});
  distillation_loss(good);
  const auto refused = [&](auto change, const std::string& text) {
    DistillationLossArgs a = good;
    change(a);
    try {
      distillation_loss(a);
      ADD_FAILURE() << "expected an error with '" << text << "'";
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
    }
  };
  refused([](auto& a) { a.student_logits = Tensor(); }, "student_logits");
  refused([](auto& a) { a.teacher_logits = randn({6, 4}, 1); }, "teacher_logits");
  refused([](auto& a) { a.targets = randn({6}, 1); }, "targets");
  refused([](auto& a) { a.lambda = Tensor(); }, "lambda");
  refused([](auto& a) { a.lambda = Tensor::zeros({5}); }, "lambda");
  refused([](auto& a) { a.temperature = Tensor::zeros({6, 1}); }, "temperature");
  refused([](auto& a) { a.mask = Tensor::zeros({6}); }, "mask");
  refused([](auto& a) { a.weights = Tensor::zeros({3}); }, "weights");
  refused([](auto& a) { a.normalizer = Tensor::zeros({2}); }, "normalizer");
  refused([](auto& a) { a.normalizer = Tensor::scalar(0); }, "normalizer");
  refused([](auto& a) { a.temperature = Tensor::scalar(0); },
          "row 0: expected a finite temperature > 0");
  refused(
      [](auto& a) {
        a.targets = Tensor::from<std::int32_t>({0, 5, 2, 1, 1, 3}, {6});
      },
      "row 1: expected a target in [0, 5) or -100 to ignore the row, got 5");
  refused([](auto& a) { a.teacher_logits = Tensor(); },
          "row 0: expected lambda = 0 where there is no teacher, got 0.1");
  refused(
      [](auto& a) {
        a.sample_of_row = Tensor::from<std::int32_t>({0, 1, 2, 3, 4, 6}, {6});
      },
      "row 5: expected a sample in [0, 6), got 6");
  refused(
      [](auto& a) {
        a.divergence = Divergence::kJensenShannon;
        a.parameter = 1;
      },
      "parameter");
}

TEST(DistillationLoss, no_rows_and_all_rows_ignored) {
  for (const Device device : devices())
    for (const std::int64_t rows : {0, 4}) {
      DistillationLossArgs a;
      a.student_logits = randn({rows, 3}, 1).to(device);
      a.student_logits.set_requires_grad(true);
      a.targets = Tensor::full({rows}, -100, DType::kI32).to(device);
      const DistillationLossResult r = distillation_loss(a);
      EXPECT_EQ(r.total.item(), 0);
      r.total.backward();
      for (const double g : a.student_logits.grad().to_vector<double>()) EXPECT_EQ(g, 0);
      for (const double ce : r.ce.to_vector<double>()) EXPECT_EQ(ce, 0);
    }
}

}  // namespace
}  // namespace retort::test
