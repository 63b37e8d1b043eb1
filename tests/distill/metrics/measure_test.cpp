#include "distill/metrics/measure.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <thread>

#include "engine/runtime/device.h"
#include "kernels/common/parallel.h"
#include "nn/data/drawn.h"
#include "nn/data/image_dataset.h"
#include "nn/models/registry.h"
#include "tests/distill/metrics/evaluation_meter.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using namespace distill;

constexpr std::int64_t kClasses = 7, kSamples = 45;

std::shared_ptr<nn::Model> mlp(std::uint64_t seed, Device device) {
  auto model = nn::make_model({.arch = "mlp",
                               .classes = kClasses,
                               .seed = seed,
                               .options = {{"hidden", nn::Ints{20}}},
                               .input = {4, 5, 3}});
  // Logits of several sizes, so that confidences fill more than one bin.
  model->visit_parameters([](const std::string& path, Tensor& p) {
    if (path == "fc2.weight") p.copy_from(scale(p.detach(), 6));
  });
  model->to(device);
  return model;
}

std::shared_ptr<const nn::Dataset> noise(const Shape& shape) {
  std::vector<std::int32_t> labels;
  for (std::int64_t i = 0; i < shape[0]; ++i)
    labels.push_back(static_cast<std::int32_t>(i * 3 % kClasses));
  return std::make_shared<nn::ImageDataset>(randint(shape, 1, 256).to(DType::kU8), labels, kClasses,
                                            "noise");
}

// Forty-five images.
std::shared_ptr<const nn::Source> images(Device device) {
  return noise({kSamples, 3, 4, 5})->source({.device = device});
}

// The same source with the labels of some samples taken away.
class SomeIgnored : public nn::Source {
 public:
  SomeIgnored(std::shared_ptr<const nn::Source> inner, std::vector<std::int64_t> ignored)
      : inner_(std::move(inner)), ignored_(std::move(ignored)) {}
  const nn::DataFacts& facts() const override { return inner_->facts(); }
  const nn::SourceOptions& options() const override { return inner_->options(); }
  nn::Batch make(std::span<const std::int64_t> samples, std::uint32_t epoch) const override {
    nn::Batch batch = inner_->make(samples, epoch);
    std::vector<std::int32_t> labels = batch.targets.to_vector<std::int32_t>();
    for (std::size_t i = 0; i < labels.size(); ++i)
      for (const std::int64_t sample : ignored_)
        if (samples[i] == sample) labels[i] = -100;
    batch.targets = Tensor::from(labels, batch.targets.shape(), batch.targets.device());
    return batch;
  }

 private:
  std::shared_ptr<const nn::Source> inner_;
  std::vector<std::int64_t> ignored_;
};

void expect_same_bits(const Measurement& a, const Measurement& b, const std::string& what) {
  EXPECT_EQ(a.samples, b.samples) << what;
  EXPECT_EQ(a.targets, b.targets) << what;
  EXPECT_EQ(a.predictions, b.predictions) << what;
  EXPECT_EQ(a.rank, b.rank) << what;
  EXPECT_EQ(a.teacher_predictions, b.teacher_predictions) << what;
  EXPECT_EQ(a.loss, b.loss) << what;
  EXPECT_EQ(a.confidence, b.confidence) << what;
  EXPECT_EQ(a.kl, b.kl) << what;
  EXPECT_EQ(a.statistics, b.statistics) << what;
  EXPECT_EQ(a.sample_of_row, b.sample_of_row) << what;
}

TEST(Measure, numbers_are_those_of_the_oracle_in_double) {
  for (const Device device : devices()) {
    const auto model = mlp(1, device);
    const auto teacher = std::make_shared<const Teacher>(mlp(2, device));
    const TeacherAnswers answers(teacher, 1, 0);
    const auto source = images(device);
    EvaluationMeter meter;
    const Measurement m =
        measure(*model, *source,
                {.batch = 13,
                 .teacher = &answers,
                 .each = [&](const nn::Batch& batch, const nn::Outputs& out) {
                   meter.add(out.logits, batch.targets, teacher->logits(batch.read_by(1)));
                 }});
    const EvaluationResult want = meter.result();
    EXPECT_EQ(m.samples, kSamples);
    EXPECT_EQ(m.rows().rows(), static_cast<std::size_t>(want.samples));
    EXPECT_GT(want.accuracy, 0);
    EXPECT_LT(want.accuracy, 1);
    // Counts exactly, what is summed from f32 rows to their rounding.
    EXPECT_EQ(m.metric("accuracy"), want.accuracy);
    EXPECT_EQ(m.metric("teacher_agreement"), want.agreement);
    EXPECT_TRUE(close(m.metric("loss"), want.loss, 1e-5, 0));
    EXPECT_TRUE(close(m.metric("mean_kl"), want.mean_kl, 1e-4, 1e-6));
    EXPECT_TRUE(close(m.metric("calibration_error"), want.calibration_error, 1e-5, 1e-6));
    const Metrics metrics = m.metrics();
    EXPECT_EQ(metrics.size(), metrics_of_rows(m.rows()).size());
    for (const auto& [name, value] : metrics) EXPECT_EQ(m.metric(name), value) << name;
    EXPECT_TRUE(std::isnan(m.metric("wall_s")));  // not of rows
    EXPECT_TRUE(std::isnan(m.metric("nothing")));
    for (std::size_t i = 0; i < m.targets.size(); ++i)
      EXPECT_EQ(m.rank[i] == 0, m.predictions[i] == m.targets[i]) << i;
  }
}

TEST(Measure, without_a_teacher_there_is_no_agreement) {
  const auto model = mlp(1, Device::kCpu);
  const Measurement m = measure(*model, *images(Device::kCpu));
  EXPECT_TRUE(m.teacher_predictions.empty());
  EXPECT_TRUE(m.kl.empty());
  EXPECT_TRUE(std::isnan(m.metric("teacher_agreement")));
  EXPECT_FALSE(std::isnan(m.metric("accuracy")));
}

TEST(Measure, rows_are_the_same_however_the_data_is_cut) {
  for (const Device device : devices()) {
    const auto model = mlp(1, device);
    const auto teacher = std::make_shared<const Teacher>(mlp(2, device));
    const SomeIgnored source(images(device), {4, 44});
    const auto at = [&](std::int64_t batch) {
      const TeacherAnswers answers(teacher, 1, 1 << 20);
      return measure(*model, source, {.batch = batch, .teacher = &answers, .statistics = true});
    };
    const Measurement whole = at(kSamples);
    for (const std::int64_t batch : {1, 7, 44, 500})
      expect_same_bits(at(batch), whole, join(name_of(device), ", batches of ", batch));
  }
}

// Several passes over what the CPU takes few of at a time.
TEST(Measure, no_cut_and_no_thread_changes_a_bit) {
  const auto resnet = [](std::uint64_t seed) {
    return nn::make_model({.arch = "resnet8", .classes = kClasses, .seed = seed});
  };
  const auto perceptron = [](std::uint64_t seed) {
    return nn::make_model({.arch = "mlp",
                           .classes = kClasses,
                           .seed = seed,
                           .options = {{"hidden", nn::Ints{100}}},
                           .input = {4, 5, 3}});
  };
  const struct {
    std::shared_ptr<nn::Model> model, teacher;
    std::shared_ptr<const nn::Dataset> data;
    std::int64_t pass;
  } cases[] = {{resnet(1), resnet(2), noise({150, 3, 32, 32}), 64},
               {perceptron(1), perceptron(2), noise({1100, 3, 4, 5}), 500}};
  const int threads = thread_count();
  for (const auto& c : cases)
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const auto source = c.data->source({.readings = {nn::Reading{.dtype = dtype}}});
      EXPECT_EQ(samples_of_a_pass(source->facts(), Device::kCpu), c.pass);
      const auto teacher = std::make_shared<const Teacher>(c.teacher);
      const auto at = [&](std::int64_t batch, std::uint64_t kept) {
        const TeacherAnswers answers(teacher, 1, kept);
        measure(*c.model, *source, {.batch = 64, .teacher = &answers});  // keeps what it may
        return measure(*c.model, *source,
                       {.batch = batch, .teacher = &answers, .statistics = true});
      };
      const Measurement whole = at(2000, 0);
      for (const int n : {1, 2}) {
        set_thread_count(n);
        for (const std::int64_t batch : {1, 7, 64, 500})
          for (const std::uint64_t kept : {0, 100 * 7 * 4})
            expect_same_bits(at(batch, kept), whole, join(batch, " ", kept, " ", n, " threads"));
      }
      set_thread_count(threads);
    }
}

TEST(Measure, a_pass_is_smaller_where_samples_are_larger) {
  const auto of_images = [](std::int64_t side, Device device) {
    return samples_of_a_pass({.gives = nn::Reads::kImages, .input = {side, side, 3}}, device);
  };
  EXPECT_EQ(of_images(8, Device::kCpu), 500);
  EXPECT_EQ(of_images(32, Device::kCpu), 64);
  EXPECT_EQ(of_images(224, Device::kCpu), 8);
  EXPECT_EQ(of_images(32, Device::kCuda), 500);
  EXPECT_EQ(of_images(224, Device::kCuda), 80);
  const auto of_texts = [](nn::TextTask task, std::int64_t classes, std::int64_t choices = 1) {
    return samples_of_a_pass(
        {.gives = nn::Reads::kTokens, .classes = classes, .task = task, .choices = choices},
        Device::kCpu);
  };
  EXPECT_EQ(of_texts(nn::TextTask::kClassification, 2), 32);
  EXPECT_EQ(of_texts(nn::TextTask::kMultipleChoice, 4, 4), 8);
  EXPECT_EQ(of_texts(nn::TextTask::kMaskedLm, 30522), 32);
  EXPECT_EQ(of_texts(nn::TextTask::kCausalLm, 50257), 5);
  EXPECT_EQ(of_texts(nn::TextTask::kMultipleChoice, 100, 100), 1);
}

TEST(Measure, kept_answers_are_the_computed_ones) {
  for (const Device device : devices()) {
    const auto model = mlp(1, device);
    const auto teacher = std::make_shared<const Teacher>(mlp(2, device));
    const auto source = images(device);
    const std::uint64_t of_a_batch = 10 * kClasses * sizeof(float);
    const TeacherAnswers none(teacher, 1, 0), two(teacher, 1, 2 * of_a_batch),
        all(teacher, 1, 1 << 20);
    const auto with = [&](const TeacherAnswers& answers) {
      return measure(*model, *source, {.batch = 10, .teacher = &answers});
    };
    const Measurement want = with(none);
    EXPECT_FALSE(want.kl.empty());
    for (const TeacherAnswers* answers : {&none, &two, &all})
      for (int pass = 0; pass < 2; ++pass)
        expect_same_bits(with(*answers), want, join(name_of(device), ", pass ", pass));
    // Kept: the same tensor again. No room: another one.
    const nn::Batch last = source->make(std::vector<std::int64_t>{40, 41, 42, 43, 44});
    EXPECT_EQ(all.logits(4, last).raw(), all.logits(4, last).raw());
    const Tensor a = none.logits(4, last), b = none.logits(4, last);
    EXPECT_NE(a.raw(), b.raw());
  }
  EXPECT_THROW(TeacherAnswers(nullptr, 1, 0), Error);
}

// Jobs side by side share a teacher's answers; each thread has a stream of its own.
TEST(Measure, kept_answers_are_whole_for_every_thread) {
  for (const Device device : devices()) {
    const auto teacher = std::make_shared<const Teacher>(mlp(2, device));
    const auto source = images(device);
    const nn::Batch batch = source->make(std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6});
    synchronize(device);
    const auto want = teacher->logits(batch.read_by(1)).to_vector<float>();
    const TeacherAnswers answers(teacher, 1, 1 << 20);
    std::vector<std::vector<float>> got(8);
    std::vector<std::thread> threads;
    for (auto& values : got)
      threads.emplace_back([&] { values = answers.logits(0, batch).to_vector<float>(); });
    for (std::thread& thread : threads) thread.join();
    for (const auto& values : got) EXPECT_EQ(values, want) << name_of(device);
  }
}

TEST(Measure, rows_that_are_ignored_are_not_in_it) {
  for (const Device device : devices()) {
    const auto model = mlp(1, device);
    const auto source = images(device);
    const Measurement all = measure(*model, *source, {.batch = 7, .statistics = true}),
                      some = measure(*model, SomeIgnored(source, {0, 13, 44}),
                                     {.batch = 7, .statistics = true});
    EXPECT_EQ(some.samples, kSamples);
    ASSERT_EQ(some.loss.size(), static_cast<std::size_t>(kSamples - 3));
    std::size_t at = 0;
    for (std::size_t i = 0; i < static_cast<std::size_t>(kSamples); ++i) {
      if (i == 0 || i == 13 || i == 44) continue;
      EXPECT_EQ(some.sample_of_row[at], static_cast<std::int64_t>(i));
      EXPECT_EQ(some.targets[at], all.targets[i]);
      EXPECT_EQ(some.loss[at], all.loss[i]);
      EXPECT_EQ(some.confidence[at], all.confidence[i]);
      EXPECT_EQ(some.rank[at], all.rank[i]);
      ++at;
    }
  }
}

TEST(Measure, statistics_are_of_the_models_own_logits) {
  using namespace kernels;
  for (const Device device : devices()) {
    const auto model = mlp(1, device);
    const auto teacher = std::make_shared<const Teacher>(mlp(2, device));
    const TeacherAnswers answers(teacher, 1, 0);
    const auto source = images(device);
    const Measurement alone = measure(*model, *source, {.statistics = true}),
                      taught = measure(*model, *source, {.teacher = &answers, .statistics = true});
    EXPECT_EQ(alone.statistics, taught.statistics);  // a teacher beside it changes nothing
    const auto& log_p = alone.statistics[kStatTeacherLogPTrue];
    ASSERT_EQ(log_p.size(), alone.loss.size());
    for (std::size_t i = 0; i < log_p.size(); ++i) {
      EXPECT_TRUE(
          close(-static_cast<double>(log_p[i]), static_cast<double>(alone.loss[i]), 1e-5, 1e-6));
      EXPECT_EQ(alone.statistics[kStatTeacherConfidence][i], alone.confidence[i]);
      EXPECT_GE(alone.statistics[kStatTeacherEntropy][i], 0);
    }
  }
}

TEST(Measure, a_limit_draws_samples_across_the_data) {
  const auto model = mlp(1, Device::kCpu);
  const auto source = images(Device::kCpu);
  const Measurement all = measure(*model, *source, {.batch = 8}),
                    few = measure(*model, *source, {.batch = 8, .limit = 16});
  EXPECT_EQ(few.samples, 16);
  const std::vector<std::int64_t> drawn = nn::drawn_samples(all.samples, 16, 0, "measure");
  EXPECT_EQ(few.sample_of_row, drawn);
  EXPECT_GT(drawn.back(), all.samples / 2);  // the first ones may all be of one class
  for (std::size_t i = 0; i < 16; ++i)
    EXPECT_EQ(few.loss[i], all.loss[static_cast<std::size_t>(drawn[i])]);
  EXPECT_EQ(measure(*model, *source, {.batch = 8, .limit = 1000}).loss, all.loss);
}

TEST(Measure, the_mode_of_the_model_comes_back_even_after_an_error) {
  const auto model = mlp(1, Device::kCpu);
  const auto source = images(Device::kCpu);
  for (const bool training : {true, false}) {
    model->train(training);
    measure(*model, *source, {.each = [&](const nn::Batch&, const nn::Outputs&) {
      EXPECT_FALSE(model->training());
    }});
    EXPECT_EQ(model->training(), training);
  }
  model->train();
  model->visit_parameters([](const std::string& path, Tensor& p) {
    if (path == "fc1.bias") p.detach().fill(std::numeric_limits<double>::quiet_NaN());
  });
  try {
    measure(*model, *source, {.batch = 8});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNumerics);
    EXPECT_NE(std::string(e.what()).find("the logits of sample 0 are NaN"), std::string::npos);
  }
  EXPECT_TRUE(model->training());
  EXPECT_THROW(measure(*model, *source, {.batch = 0}), Error);
}

}  // namespace
}  // namespace retort::test
