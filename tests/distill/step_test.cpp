#include "distill/step.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <functional>
#include <limits>

#include "engine/ops/axpy.h"
#include "tests/distill/breaks.h"
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
  nn::Batch batch() const { return {inputs, targets}; }
  // Keeps the gradients, then clears them: an update with learning rate 0.
  Update keep_gradients() {
    gradients.clear();
    return [this] {
      for (const auto& [name, p] : student.named_parameters()) {
        gradients.push_back(p.grad().clone());
        p.zero_grad();
      }
    };
  }
  StepReport step(const StepSettings& settings, bool with_teacher = true) {
    return distill_step(with_teacher ? &teacher : nullptr, student, batch(), settings,
                        keep_gradients());
  }
  StepReport step(const StepSettings& settings, StepMeter& meter,
                  const Terms& terms = soft_targets()) {
    const RunTeacher one{std::make_shared<Teacher>(teacher_model)};
    return eager_step(std::span(&one, 1), terms, student, batch(), settings, keep_gradients(),
                      &meter);
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

// Parts before the one that throws have left gradients and numbers.
TEST(DistillStep, a_step_that_throws_leaves_nothing_behind) {
  for (const Device device : devices())
    for (const std::int64_t micro : {0, 3}) {
      Fixture f(device);
      const auto breaks = std::make_shared<Breaks>();
      const Terms terms = {soft_targets()[0], {1, breaks}};
      StepMeter meter;
      const StepSettings settings{.micro_batch = micro};
      const double want = f.step(settings, meter, terms).loss();
      const auto gradients = f.gradients;
      breaks->at = breaks->calls + (micro == 0 ? 1 : 3);
      EXPECT_THROW(f.step(settings, meter, terms), Error);
      EXPECT_EQ(meter.size(), 1);
      for (const auto& [name, p] : f.student.named_parameters())
        EXPECT_EQ(p.grad().to_vector<float>(),
                  std::vector<float>(static_cast<std::size_t>(p.numel())))
            << name;
      EXPECT_EQ(f.step(settings, meter, terms).loss(), want);
      for (std::size_t i = 0; i < gradients.size(); ++i)
        EXPECT_TRUE(same_bytes(f.gradients[i], gradients[i])) << i;
      const std::vector<StepNumbers> steps = meter.take();
      ASSERT_EQ(steps.size(), 2u);
      EXPECT_EQ(steps[1].loss(), steps[0].loss());
      EXPECT_EQ(steps[1].mean("mean"), steps[0].mean("mean"));
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
    const StepNumbers want = f.step(settings).host();
    const auto gradients = f.gradients;
    f.inputs = all;
    f.targets = labels.clone();
    f.targets.slice(0, 3).fill(-100);
    f.targets.slice(8, 10).fill(-100);
    for (const std::int64_t micro : {0, 1, 2, 3, 9}) {
      settings.micro_batch = micro;
      StepMeter meter;
      const StepReport report = f.step(settings, meter);
      for (const StepNumbers& s : {report.host(), meter.summary()}) {
        EXPECT_EQ(s.samples, 10) << micro;
        EXPECT_EQ(s.rows, 5) << micro;
        EXPECT_TRUE(close(s.loss(), want.loss(), 1e-5, 1e-6)) << micro;
        EXPECT_TRUE(close(s.mean("loss_ce"), want.mean("loss_ce"), 1e-6, 0)) << micro;
        EXPECT_TRUE(close(s.mean("loss_kd"), want.mean("loss_kd"), 1e-6, 0)) << micro;
        EXPECT_EQ(s.mean("accuracy"), want.mean("accuracy")) << micro;
        EXPECT_EQ(s.mean("teacher_accuracy"), want.mean("teacher_accuracy")) << micro;
      }
      for (std::size_t i = 0; i < gradients.size(); ++i)
        EXPECT_TRUE(all_close(f.gradients[i], gradients[i])) << micro;
    }
    f.targets.fill(-100);
    for (const std::int64_t micro : {0, 4}) {
      settings.micro_batch = micro;
      const StepNumbers s = f.step(settings).host();
      EXPECT_EQ(s.rows, 0);
      EXPECT_EQ(s.loss(), 0);
      EXPECT_EQ(s.mean("accuracy"), 0);
    }
  }
}

TEST(DistillStep, loss_is_the_formula) {
  Fixture f;
  const StepReport report = f.step({.lambda = {0.25f}, .temperature = {4.0f}});
  const StepNumbers s = report.host();
  EXPECT_EQ(s.steps, 1);
  EXPECT_EQ(s.samples, 10);
  EXPECT_EQ(s.rows, 10);
  EXPECT_TRUE(s.has("loss_kd"));
  EXPECT_EQ(report.column("loss_ce").size(), 10u);
  EXPECT_TRUE(close(s.loss(), 0.75 * s.mean("loss_ce") + 0.25 * s.mean("loss_kd"), 1e-5, 1e-6));
  EXPECT_GT(s.mean("loss_kd"), 0);
}

TEST(DistillStep, per_sample_lambda_weighs_each_row) {
  Fixture f;
  StepSettings settings;
  settings.lambda = {0, 1, 0.5f, 0, 1, 0.5f, 0, 1, 0.5f, 0.1f};
  for (const std::int64_t micro : {0, 4}) {
    settings.micro_batch = micro;
    const StepReport report = f.step(settings);
    const std::vector<float> ce = report.column("loss_ce"), kd = report.column("loss_kd");
    double want = 0;
    for (std::size_t i = 0; i < 10; ++i)
      want += ((1 - static_cast<double>(settings.lambda[i])) * static_cast<double>(ce[i]) +
               static_cast<double>(settings.lambda[i]) * static_cast<double>(kd[i])) /
              10;
    EXPECT_TRUE(close(report.loss(), want, 1e-5, 1e-6)) << report.loss() << " " << want;
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
  const nn::Batch batch = f.batch();
  const StepReport without = distill_step(&teacher, f.student, batch, {.lambda = {0}}, update);
  EXPECT_EQ(model->forwards, 0);
  EXPECT_FALSE(without.host().has("loss_kd"));
  EXPECT_FALSE(without.host().has("teacher_accuracy"));
  EXPECT_EQ(without.loss(), f.step({.lambda = {0}}, false).loss());
  EXPECT_TRUE(close(without.loss(), without.host().mean("loss_ce"), 1e-6, 0));
  distill_step(&teacher, f.student, batch, {.lambda = {0.5f}}, update);
  EXPECT_EQ(model->forwards, 1);
}

TEST(DistillStep, the_teacher_has_its_own_inputs_and_learns_nothing) {
  Fixture f;
  const Tensor before = f.teacher_model->named_parameters()[0].second.detach().clone();
  nn::Batch batch = f.batch();
  batch.inputs.emplace_back(randn({10, 6}, 9));
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
  const nn::Batch batch = f.batch();
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
    const StepNumbers want = f.step({}).host();
    f.step({}, meter);
    f.step({}, meter);
    EXPECT_FALSE(meter.empty());
    const StepNumbers s = meter.summary();
    EXPECT_EQ(s.steps, 2);
    EXPECT_EQ(s.samples, 20);
    EXPECT_EQ(s.rows, 20);
    EXPECT_EQ(s.loss(), want.loss()) << name_of(device);
    for (const char* name : {"loss_ce", "loss_kd"})
      EXPECT_TRUE(close(s.mean(name), want.mean(name), 1e-12, 0)) << name;
    EXPECT_EQ(s.mean("accuracy"), want.mean("accuracy"));
    EXPECT_EQ(s.mean("teacher_accuracy"), want.mean("teacher_accuracy"));
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
      losses.push_back(f.step(settings, large).loss());
      f.step(settings, small);
    }
    EXPECT_EQ(small.size(), 5);
    const std::vector<StepNumbers> a = large.take(), b = small.take();
    ASSERT_EQ(a.size(), 5u);
    ASSERT_EQ(b.size(), 5u);
    for (std::size_t i = 0; i < 5; ++i) {
      // The parts of a step are added in double here, as they are on the device.
      EXPECT_TRUE(close(a[i].loss(), losses[i], 1e-12, 0)) << i;
      EXPECT_EQ(a[i].samples, 10);
      EXPECT_EQ(b[i].loss(), a[i].loss());
      EXPECT_EQ(b[i].sum("loss_ce"), a[i].sum("loss_ce"));
      EXPECT_EQ(a[i].has("loss_kd"), i > 0);  // lambda 0 asks nobody
    }
  }
}

TEST(DistillStep, errors) {
  Fixture f;
  EXPECT_THROW(f.step({.lambda = {0.1f, 0.2f}}), Error);
  EXPECT_THROW(f.step({.temperature = {}}), Error);
  EXPECT_THROW(f.step({.micro_batch = -1}), Error);
  EXPECT_THROW(f.step({.lambda = {0.5f}}, false), Error);
  const RunTeacher one{std::make_shared<Teacher>(f.teacher_model)};
  EXPECT_THROW(eager_step(std::span(&one, 1), {}, f.student, f.batch(), {}, [] {}), Error);
  // A model that teaches itself would be frozen and trained at once.
  EXPECT_THROW(distill_step(&f.teacher, *f.teacher_model, f.batch(), {}, [] {}), Error);
}

TEST(DistillStep, a_student_in_its_teachers_memory_is_refused) {
  Fixture f;
  const std::string shared = f.teacher_model->named_parameters()[1].first;
  TinyMlp student(6, {16}, 4, 7);
  const auto error = [&]() -> std::string {
    try {
      distill_step(&f.teacher, student, f.batch(), {}, [] {});
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(error(), "");
  student.visit_parameters([&](const std::string& path, Tensor& p) {
    if (path == shared) p = f.teacher_model->named_parameters()[1].second;
  });
  EXPECT_NE(error().find("shares '" + shared + "' with its teacher"), std::string::npos) << error();
}

TEST(DistillStep, numbers_that_are_not_finite_are_refused_by_sample) {
  Fixture f;
  const auto error_of = [&](const StepSettings& settings) -> std::string {
    try {
      f.step(settings);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUsage);
      return e.what();
    }
    return "accepted";
  };
  std::vector<float> values(10, 0.5f);
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    values[3] = bad;
    EXPECT_NE(error_of({.lambda = values}).find("for sample 3 of the batch"), std::string::npos);
    EXPECT_NE(error_of({.temperature = values}).find("for sample 3 of the batch"),
              std::string::npos);
  }
  for (const float bad : {0.0f, -1.0f}) {
    values[3] = bad;
    EXPECT_NE(error_of({.temperature = values}).find("temperature > 0"), std::string::npos);
  }
  EXPECT_EQ(error_of({.lambda = {1.5f}}), "accepted");  // beyond 1 it is a number all the same
}

TEST(DistillStep, a_column_is_read_row_by_row_however_the_batch_is_cut) {
  for (const Device device : devices()) {
    Fixture f(device);
    const StepReport whole = f.step({}), cut = f.step({.micro_batch = 3});
    for (const char* name : {"loss_ce", "loss_kd"}) {
      const std::vector<float> a = whole.column(name), b = cut.column(name);
      ASSERT_EQ(a.size(), 10u);
      ASSERT_EQ(b.size(), 10u);
      for (std::size_t i = 0; i < 10; ++i) EXPECT_TRUE(close(b[i], a[i], 1e-5, 1e-6)) << name;
    }
    EXPECT_EQ(cut.column("accuracy"), whole.column("accuracy"));
    EXPECT_TRUE(whole.column("loss_hidden").empty());
  }
}

// Twice its weight, and a column that only it has.
class Twice : public SoftTargets {
 public:
  std::string name() const override { return "twice"; }
  TermLoss operator()(const nn::Outputs& student, std::span<const nn::Outputs> teachers,
                      const Rows& rows) const override {
    const TermLoss loss = SoftTargets::operator()(student, teachers, rows);
    return {loss.total, {{"loss_twice", loss.total.detach(), Per::kStep}}};
  }
};

TEST(DistillStep, terms_are_summed_with_their_weights) {
  for (const Device device : devices()) {
    Fixture f(device);
    StepMeter meter;
    const double one = f.step({}).loss();
    const auto gradients = f.gradients;
    const Terms terms{{1, std::make_shared<SoftTargets>()}, {2, std::make_shared<Twice>()}};
    for (const std::int64_t micro : {0, 4}) {
      const StepReport report = f.step({.micro_batch = micro}, meter, terms);
      EXPECT_TRUE(close(report.loss(), 3 * one, 1e-5, 1e-6)) << micro;
      for (std::size_t i = 0; i < gradients.size(); ++i)
        EXPECT_TRUE(all_close(f.gradients[i], scale(gradients[i], 3))) << micro;
      const StepNumbers s = report.host();
      EXPECT_TRUE(close(s.mean("loss_twice"), one, 1e-5, 1e-6));  // the weight is not in it
      EXPECT_TRUE(s.has("loss_ce"));
      EXPECT_EQ(s.columns().back().name, "loss_twice");  // in the order of the terms
      EXPECT_EQ(s.columns().front().name, "loss");
    }
    EXPECT_TRUE(close(meter.summary().mean("loss_twice"), one, 1e-5, 1e-6));
  }
}

// A model of tokens in small: a row of logits is its token alone.
class Tokens : public TinyMlp {
 public:
  Tokens() : TinyMlp(6, {8}, 4, 2) {}
  nn::Outputs forward(const nn::Inputs& in, const nn::Want& want) override {
    const auto n = static_cast<std::int64_t>(in.rows_on_host.size());
    const auto ids = in.values.to_vector<std::int32_t>();
    std::vector<float> x;
    for (const std::int32_t row : in.rows_on_host)
      for (int k = 0; k < 6; ++k)
        x.push_back(static_cast<float>((ids[static_cast<std::size_t>(row)] * 7 + k * 3) % 5) - 2);
    return TinyMlp::forward(Tensor::from(x, {n, 6}), want);
  }
};

// A term that is told what part of the batch its rows are.
class Shares : public SoftTargets {
 public:
  TermLoss operator()(const nn::Outputs& student, std::span<const nn::Outputs> teachers,
                      const Rows& rows) const override {
    told.push_back({rows.share, rows.row_share, rows.value_share});
    return SoftTargets::operator()(student, teachers, rows);
  }
  mutable std::vector<std::array<double, 3>> told;
};

// Three texts of 1, 3 and 1 tokens, of which 1, 2 and 1 are rows.
TEST(DistillStep, a_part_knows_its_share_of_samples_rows_and_values) {
  nn::Batch batch(nn::Inputs::tokens(Tensor::from<std::int32_t>({3, 8, 4, 1, 9}, {5}), {0, 1, 4, 5},
                                     {0, 1, 2, 4}),
                  Tensor::from<std::int32_t>({0, 1, 2, 3}, {4}));
  batch.set_rows({0, 1, 1, 2});
  Tokens student;
  const auto shares = std::make_shared<Shares>();
  distill_step(nullptr, student, batch, {.lambda = {0}, .micro_batch = 1}, [] {}, {{1, shares}});
  ASSERT_EQ(shares->told.size(), 3u);
  const double want[3][3] = {
      {1. / 3, 1. / 4, 1. / 5}, {1. / 3, 2. / 4, 3. / 5}, {1. / 3, 1. / 4, 1. / 5}};
  for (std::size_t i = 0; i < 3; ++i)
    for (std::size_t k = 0; k < 3; ++k)
      EXPECT_DOUBLE_EQ(shares->told[i][k], want[i][k]) << i << " " << k;
}

// Three texts of 1, 3 and 1 rows: settings are by sample, the loss is by row.
TEST(DistillStep, rows_that_are_not_samples_weigh_alike_in_any_split) {
  nn::Batch batch(nn::Inputs::tokens(Tensor::from<std::int32_t>({3, 8, 4, 1, 9}, {5}), {0, 1, 4, 5},
                                     {0, 1, 2, 3, 4}),
                  Tensor::from<std::int32_t>({0, 1, 2, 3, -100}, {5}));
  batch.set_rows({0, 1, 1, 1, 2});
  Tokens student;
  const Teacher teacher(std::make_shared<Tokens>());
  std::vector<Tensor> gradients;
  const auto step = [&](std::int64_t micro) {
    gradients.clear();
    return distill_step(&teacher, student, batch,
                        {.lambda = {0, 1, 0.5f}, .temperature = {1, 2, 3}, .micro_batch = micro},
                        [&] {
                          for (const auto& [name, p] : student.named_parameters()) {
                            gradients.push_back(p.grad().clone());
                            p.zero_grad();
                          }
                        });
  };
  const StepReport whole = step(0);
  const auto want = gradients;
  const std::vector<float> ce = whole.column("loss_ce");
  ASSERT_EQ(ce.size(), 5u);
  // The student has its teacher's weights: lambda 1 adds nothing, and row 4 is ignored.
  EXPECT_TRUE(close(whole.loss(), static_cast<double>(ce[0]) / 4, 1e-5, 1e-6));
  EXPECT_EQ(whole.host().rows, 4);
  EXPECT_EQ(whole.host().samples, 3);
  for (const std::int64_t micro : {1, 2}) {
    EXPECT_TRUE(close(step(micro).loss(), whole.loss(), 1e-5, 1e-6)) << micro;
    for (std::size_t i = 0; i < want.size(); ++i)
      EXPECT_TRUE(all_close(gradients[i], want[i])) << micro;
  }
}

TEST(DistillStep, a_field_of_another_length_is_named) {
  Fixture f;
  const auto error_of = [&](const std::function<void(nn::Batch&)>& change) -> std::string {
    nn::Batch batch = f.batch();
    change(batch);
    try {
      distill_step(&f.teacher, f.student, batch, {.micro_batch = 4}, [] {});
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(error_of([](nn::Batch&) {}), "");
  EXPECT_EQ(error_of([](nn::Batch& b) { b.targets = randint({12}, 4, 4); }),
            "[batch] expected targets (10) of i32, got (12) of i32");
  EXPECT_EQ(error_of([](nn::Batch& b) { b.targets = Tensor::zeros({10}); }),
            "[batch] expected targets (10) of i32, got (10) of f32");
  EXPECT_EQ(error_of([](nn::Batch& b) {
              b.inputs.emplace_back(randn({11, 6}, 1));
            }),
            "[batch] expected readings of 10 samples, got one of 11");
  EXPECT_EQ(error_of([](nn::Batch& b) { b.sample.resize(9); }),
            "[batch] expected names of 10 samples or none, got 9");
  EXPECT_EQ(error_of([](nn::Batch& b) { b.variant.resize(11); }),
            "[batch] expected variants of 10 samples or none, got 11");
  EXPECT_NE(error_of([](nn::Batch& b) { b.inputs[0] = nn::Inputs(); }), "");
  EXPECT_NE(error_of([](nn::Batch& b) { b.inputs.clear(); }), "");
}

}  // namespace
}  // namespace retort::test
