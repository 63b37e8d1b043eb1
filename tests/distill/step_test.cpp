#include "distill/step.h"

#include <gtest/gtest.h>

#include <functional>

#include "engine/ops/axpy.h"
#include "tests/distill/models.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using namespace distill;

struct Fixture {
  std::shared_ptr<TinyMlp> teacher_model =
      std::make_shared<TinyMlp>(6, std::vector<std::int64_t>{16}, 4, 1);
  TinyMlp student{6, {8}, 4, 2};
  Teacher teacher{teacher_model};
  Tensor inputs = randn({10, 6}, 3), targets = randint({10}, 4, 4);
  std::vector<Tensor> gradients;

  explicit Fixture(Device device = Device::kCpu) : device_(device) {
    teacher_model->to(device);
    student.to(device);
    inputs = inputs.to(device);
    targets = targets.to(device);
  }
  // Keeps the gradients, then clears them: an update with learning rate 0.
  StepReport step(const StepSettings& settings, bool with_teacher = true) {
    gradients.clear();
    return distill_step(with_teacher ? &teacher : nullptr, student,
                        {.inputs = inputs, .teacher_inputs = {}, .targets = targets}, settings,
                        [&] {
                          for (const auto& [name, p] : student.named_parameters()) {
                            gradients.push_back(p.grad().clone());
                            p.zero_grad();
                          }
                        });
  }
  Device device_;
};

TEST(DistillStep, any_split_gives_the_same_loss_and_gradient) {
  for (const Device device : devices()) {
    Fixture f(device);
    StepSettings settings{.lambda = {0.3f}, .temperature = {2.0f}};
    const double whole = f.step(settings).loss();
    const auto gradients = f.gradients;
    for (const std::int64_t micro : {1, 3, 4, 9, 10, 99}) {
      settings.micro_batch = micro;
      EXPECT_TRUE(close(f.step(settings).loss(), whole, 1e-5, 1e-6)) << micro;
      for (std::size_t i = 0; i < gradients.size(); ++i)
        EXPECT_TRUE(all_close(f.gradients[i], gradients[i])) << micro;
    }
  }
}

// Rows of target -100 are as good as absent, however the batch is cut.
TEST(DistillStep, ignored_rows_count_nowhere_in_any_split) {
  for (const Device device : devices()) {
    Fixture f(device);
    StepSettings settings{.lambda = {0.3f}, .temperature = {2.0f}};
    const Tensor all = f.inputs, labels = f.targets;
    f.inputs = all.slice(3, 8);
    f.targets = labels.slice(3, 8);
    const StepStatistics want = f.step(settings).host();
    const auto gradients = f.gradients;
    f.inputs = all;
    f.targets = labels.clone();
    f.targets.slice(0, 3).fill(-100);
    f.targets.slice(8, 10).fill(-100);
    for (const std::int64_t micro : {0, 1, 2, 3, 9}) {
      settings.micro_batch = micro;
      const StepReport report = f.step(settings);
      StepMeter meter;
      meter.add(report);
      for (const StepStatistics& s : {report.host(), meter.summary()}) {
        EXPECT_EQ(s.samples, 5) << micro;
        EXPECT_TRUE(close(s.loss, want.loss, 1e-5, 1e-6)) << micro;
        EXPECT_TRUE(close(s.loss_ce, want.loss_ce, 1e-6, 0)) << micro;
        EXPECT_TRUE(close(s.loss_kd, want.loss_kd, 1e-6, 0)) << micro;
        EXPECT_EQ(s.accuracy, want.accuracy) << micro;
        EXPECT_EQ(s.teacher_accuracy, want.teacher_accuracy) << micro;
      }
      for (std::size_t i = 0; i < gradients.size(); ++i)
        EXPECT_TRUE(all_close(f.gradients[i], gradients[i])) << micro;
    }
    f.targets.fill(-100);
    for (const std::int64_t micro : {0, 4}) {
      settings.micro_batch = micro;
      const StepStatistics s = f.step(settings).host();
      EXPECT_EQ(s.samples, 0);
      EXPECT_EQ(s.loss, 0);
      EXPECT_EQ(s.accuracy, 0);
    }
  }
}

TEST(DistillStep, loss_is_the_formula) {
  Fixture f;
  const StepStatistics s = f.step({.lambda = {0.25f}, .temperature = {4.0f}}).host();
  EXPECT_EQ(s.samples, 10);
  EXPECT_TRUE(s.has_teacher);
  EXPECT_EQ(s.ce.size(), 10u);
  EXPECT_TRUE(close(s.loss, 0.75 * s.loss_ce + 0.25 * s.loss_kd, 1e-5, 1e-6));
  EXPECT_GT(s.loss_kd, 0);
}

TEST(DistillStep, per_sample_lambda_weighs_each_row) {
  Fixture f;
  StepSettings settings;
  settings.lambda = {0, 1, 0.5f, 0, 1, 0.5f, 0, 1, 0.5f, 0.1f};
  for (const std::int64_t micro : {0, 4}) {
    settings.micro_batch = micro;
    const StepStatistics s = f.step(settings).host();
    double want = 0;
    for (std::size_t i = 0; i < 10; ++i)
      want += ((1 - static_cast<double>(settings.lambda[i])) * static_cast<double>(s.ce[i]) +
               static_cast<double>(settings.lambda[i]) * static_cast<double>(s.kd[i])) /
              10;
    EXPECT_TRUE(close(s.loss, want, 1e-5, 1e-6)) << s.loss << " " << want;
  }
}

TEST(DistillStep, lambda_zero_does_not_ask_the_teacher) {
  auto model = std::make_shared<LinearModel>(6, 4);
  model->initialize(1);
  const Teacher teacher(model);
  Fixture f;
  const auto update = [&] {
    for (const auto& [name, p] : f.student.named_parameters()) p.zero_grad();
  };
  const StepBatch batch{.inputs = f.inputs, .teacher_inputs = {}, .targets = f.targets};
  const StepReport without = distill_step(&teacher, f.student, batch, {.lambda = {0}}, update);
  EXPECT_EQ(model->forwards, 0);
  EXPECT_FALSE(without.has_teacher);
  EXPECT_EQ(without.loss(), f.step({.lambda = {0}}, false).loss());
  EXPECT_TRUE(close(without.host().loss, without.host().loss_ce, 1e-6, 0));
  distill_step(&teacher, f.student, batch, {.lambda = {0.5f}}, update);
  EXPECT_EQ(model->forwards, 1);
}

TEST(DistillStep, the_teacher_has_its_own_inputs_and_learns_nothing) {
  Fixture f;
  const Tensor before = f.teacher_model->named_parameters()[0].second.detach().clone();
  const StepBatch batch{
      .inputs = f.inputs, .teacher_inputs = randn({10, 6}, 9), .targets = f.targets};
  const auto update = [&] {
    for (const auto& [name, p] : f.student.named_parameters()) p.zero_grad();
  };
  const double other = distill_step(&f.teacher, f.student, batch, {.lambda = {1}}, update).loss();
  EXPECT_NE(other, f.step({.lambda = {1}}).loss());
  EXPECT_TRUE(same_bytes(f.teacher_model->named_parameters()[0].second.detach(), before));
  EXPECT_FALSE(f.teacher_model->named_parameters()[0].second.requires_grad());
}

TEST(DistillStep, one_step_of_sgd_lowers_the_loss) {
  Fixture f;
  const StepBatch batch{.inputs = f.inputs, .teacher_inputs = {}, .targets = f.targets};
  const auto update = [&] {
    for (const auto& [name, p] : f.student.named_parameters()) {
      add_into(p.detach(), p.grad(), -0.1);
      p.zero_grad();
    }
  };
  double last = 1e9;
  for (int i = 0; i < 5; ++i) {
    const double loss = distill_step(&f.teacher, f.student, batch, {}, update).loss();
    EXPECT_LT(loss, last);
    last = loss;
  }
}

TEST(DistillStep, meter_averages_over_samples) {
  for (const Device device : devices()) {
    Fixture f(device);
    StepMeter meter;
    EXPECT_EQ(meter.summary().samples, 0);
    const StepStatistics want = f.step({}).host();
    meter.add(f.step({}));
    meter.add(f.step({}));
    EXPECT_FALSE(meter.empty());
    const StepStatistics s = meter.summary();
    EXPECT_EQ(s.samples, 20);
    EXPECT_TRUE(s.has_teacher);
    EXPECT_EQ(s.loss, want.loss) << name_of(device);
    EXPECT_TRUE(close(s.loss_ce, want.loss_ce, 1e-12, 0));
    EXPECT_TRUE(close(s.loss_kd, want.loss_kd, 1e-12, 0));
    EXPECT_EQ(s.accuracy, want.accuracy);
    EXPECT_EQ(s.teacher_accuracy, want.teacher_accuracy);
    EXPECT_TRUE(meter.empty());
  }
}

TEST(DistillStep, meter_keeps_every_step_in_order_whatever_its_capacity) {
  for (const Device device : devices()) {
    Fixture f(device);
    StepMeter large(16), small(2);
    std::vector<double> losses;
    for (int i = 0; i < 5; ++i) {
      StepSettings settings{.lambda = {0.1f * static_cast<float>(i)}};
      settings.micro_batch = i == 3 ? 4 : 0;  // its parts are one step
      const StepReport report = f.step(settings);
      losses.push_back(report.loss());
      large.add(report);
      small.add(report);
    }
    EXPECT_EQ(small.size(), 5);
    const std::vector<StepNumbers> a = large.take(), b = small.take();
    ASSERT_EQ(a.size(), 5u);
    ASSERT_EQ(b.size(), 5u);
    for (std::size_t i = 0; i < 5; ++i) {
      EXPECT_EQ(a[i].loss, losses[i]) << i;
      EXPECT_EQ(a[i].samples, 10);
      EXPECT_EQ(b[i].loss, a[i].loss);
      EXPECT_EQ(b[i].ce, a[i].ce);
    }
  }
}

TEST(DistillStep, errors) {
  Fixture f;
  EXPECT_THROW(f.step({.lambda = {0.1f, 0.2f}}), Error);
  EXPECT_THROW(f.step({.temperature = {}}), Error);
  EXPECT_THROW(f.step({.micro_batch = -1}), Error);
  EXPECT_THROW(f.step({.lambda = {0.5f}}, false), Error);
}

TEST(DistillStep, a_field_of_another_length_is_named) {
  Fixture f;
  const std::vector<std::int64_t> samples(9);
  const std::vector<std::uint32_t> augment(11);
  const auto error_of = [&](const std::function<void(StepBatch&)>& change) -> std::string {
    StepBatch batch{.inputs = f.inputs, .teacher_inputs = {}, .targets = f.targets};
    change(batch);
    try {
      distill_step(&f.teacher, f.student, batch, {.micro_batch = 4}, [] {});
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(error_of([](StepBatch&) {}), "");
  EXPECT_EQ(error_of([](StepBatch& b) { b.targets = randint({12}, 4, 4); }),
            "[distill_step] expected targets (10) of i32, got (12) of i32");
  EXPECT_EQ(error_of([](StepBatch& b) { b.targets = Tensor::zeros({10}); }),
            "[distill_step] expected targets (10) of i32, got (10) of f32");
  EXPECT_EQ(error_of([](StepBatch& b) {
              b.teacher_inputs = randn({11, 6}, 1);
            }),
            "[distill_step] expected teacher_inputs of 10 rows, got (11, 6)");
  EXPECT_EQ(error_of([&](StepBatch& b) { b.samples = samples; }),
            "[distill_step] expected samples of 10 rows or none, got 9");
  EXPECT_EQ(error_of([&](StepBatch& b) { b.augment = augment; }),
            "[distill_step] expected augment of 10 rows or none, got 11");
  EXPECT_NE(error_of([](StepBatch& b) { b.inputs = Tensor(); }), "");
}

}  // namespace
}  // namespace retort::test
