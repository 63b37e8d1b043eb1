// A step whose batch is cut into slices: what it gives depends on their number alone.
#include <gtest/gtest.h>

#include <cmath>

#include "distill/step.h"
#include "nn/models/registry.h"
#include "nn/optim/optimizer.h"
#include "tests/distill/breaks.h"
#include "tests/distill/models.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using namespace distill;

struct Setup {
  bool resnet = false;  // batch norms; else an MLP
  std::int64_t slices = 4, samples = 10;
  Device device = Device::kCpu;
};

// A student, its teacher and one batch; steps that keep their gradient and change no parameter.
struct Sliced {
  explicit Sliced(const Setup& s) : student(make(s.resnet, 1)) {
    student->to(s.device);
    const auto teacher_model = make(s.resnet, 2);
    teacher_model->to(s.device);
    teacher = std::make_shared<Teacher>(teacher_model);
    const Shape shape = s.resnet ? Shape{s.samples, 8, 8, 3} : Shape{s.samples, 6};
    batch = {randn(shape, 3).to(s.device), randint({s.samples}, 4, 4).to(s.device)};
    nn::SgdConfig config;
    config.slices = s.slices;
    optimizer = std::make_unique<nn::Sgd>(*student, config);
    optimizer->zero_grad();
    settings.lambda = {0.3f};
    settings.temperature = {2.0f};
  }
  static std::shared_ptr<nn::Model> make(bool resnet, std::uint64_t seed) {
    if (!resnet) return std::make_shared<TinyMlp>(6, std::vector<std::int64_t>{16}, 4, seed);
    nn::ModelConfig config{.arch = "resnet8", .classes = 4, .seed = seed};
    config.options.set("widths", nn::Ints{4, 4, 8, 8});
    return nn::make_model(config);
  }

  StepReport step(StepMeter* meter = nullptr, const Terms& terms = soft_targets()) {
    settings.slices = optimizer->slices();
    const RunTeacher one{teacher};
    return eager_step(
        std::span(&one, 1), terms, *student, batch, settings,
        [this] {
          gradient = optimizer->slices() ? optimizer->slices()->finish().clone()
                                         : optimizer->arena().gradients().clone();
          optimizer->zero_grad();
        },
        meter);
  }
  // What samples [begin, end) add to the gradient, as a process of its own would find it.
  std::vector<float> gradient_of(std::int64_t begin, std::int64_t end) {
    nn::Batch part = batch.slice(begin, end);
    part.inputs[0].values = part.inputs[0].values.clone();
    part.targets = part.targets.clone();
    Rows rows = rows_of(part, settings, true);
    rows.normalizer =
        Tensor::scalar(static_cast<double>(batch.size()), DType::kF32, part.inputs[0].device());
    std::vector<float> gradient;
    const Answer answer = [&](std::size_t, const nn::Batch& b, std::int64_t, const nn::Want& want) {
      return answer_of(*teacher, b, 1, want);
    };
    const Update update = [&] {
      gradient = optimizer->arena().gradients().to_vector<float>();
      optimizer->zero_grad();
    };
    const StepContext context{*student, 1, answer, update};
    one_step(context, part, soft_targets(), rows);
    return gradient;
  }

  std::shared_ptr<nn::Model> student;
  std::shared_ptr<Teacher> teacher;
  nn::Batch batch;
  std::unique_ptr<nn::Optimizer> optimizer;
  StepSettings settings;
  Tensor gradient;  // of the last step
};

std::vector<float> added(const std::vector<float>& left, const std::vector<float>& right) {
  std::vector<float> sum(left.size());
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = left[i] + right[i];
  return sum;
}

TEST(SlicedStep, gradients_of_slices_are_added_along_the_tree) {
  for (const Device device : devices())
    for (const bool resnet : {false, true})
      for (const std::int64_t slices : {3, 4}) {
        Sliced run({resnet, slices, 10, device});
        run.step();
        std::vector<std::vector<float>> g;
        for (std::int64_t s = 0; s < slices; ++s) {
          const auto [begin, end] = nn::slice_of(10, slices, s);
          g.push_back(run.gradient_of(begin, end));
        }
        const auto left = added(g[0], g[1]);
        const std::vector<float> got = run.gradient.to_vector<float>();
        EXPECT_EQ(got, added(left, slices == 3 ? g[2] : added(g[2], g[3])))
            << name_of(device) << resnet << slices;
        if (slices == 4) {  // one after the other, as ranks that pass a sum on would
          EXPECT_NE(got, added(added(left, g[2]), g[3])) << name_of(device) << resnet;
          EXPECT_NE(got, added(added(g[0], g[2]), added(g[1], g[3]))) << name_of(device) << resnet;
        }
      }
}

TEST(SlicedStep, without_batch_norm_any_number_gives_the_gradient_of_the_whole) {
  for (const Device device : devices())
    for (const std::int64_t samples : {1, 3, 6, 61}) {
      Sliced whole({false, 1, samples, device});
      const StepNumbers want = whole.step().host();
      for (const std::int64_t slices : {2, 4, 7, 16})
        for (const std::int64_t micro : {0, 2}) {
          Sliced run({false, slices, samples, device});
          run.settings.micro_batch = micro;
          const StepNumbers numbers = run.step().host();
          const std::string what = join(name_of(device), samples, " ", slices, " ", micro);
          EXPECT_TRUE(all_close(run.gradient, whole.gradient)) << what;
          EXPECT_TRUE(close(numbers.loss(), want.loss(), 1e-5, 1e-6)) << what;
          EXPECT_EQ(numbers.rows, samples) << what;
          EXPECT_EQ(numbers.mean("accuracy"), want.mean("accuracy")) << what;
        }
    }
}

// Slices 2 and 3 of four have no row that counts; a share per sample goes with its sample.
TEST(SlicedStep, rows_that_do_not_count_count_nowhere) {
  for (const Device device : devices()) {
    Sliced whole({false, 1, 12, device}), run({false, 4, 12, device});
    for (Sliced* r : {&whole, &run}) {
      r->batch.targets.slice(5, 12).fill(-100);
      r->settings.lambda.clear();
      for (int i = 0; i < 12; ++i) r->settings.lambda.push_back(0.1f * static_cast<float>(i));
    }
    const StepNumbers want = whole.step().host(), got = run.step().host();
    EXPECT_EQ(got.rows, 5) << name_of(device);
    EXPECT_TRUE(close(got.loss(), want.loss(), 1e-5, 1e-6)) << name_of(device);
    EXPECT_TRUE(all_close(run.gradient, whole.gradient)) << name_of(device);
  }
}

TEST(SlicedStep, numbers_are_added_in_the_order_of_the_slices) {
  for (const Device device : devices())
    for (const std::int64_t slices : {3, 4, 16}) {
      Sliced run({false, slices, 10, device});
      StepMeter large(64), small(1);
      std::vector<StepReport> reports;
      for (int t = 0; t < 3; ++t) {
        reports.push_back(run.step(&large));
        run.step(&small);
      }
      EXPECT_EQ(large.size(), 3);
      const std::vector<StepNumbers> steps = large.take(), others = small.take();
      ASSERT_EQ(steps.size(), 3u);
      ASSERT_EQ(others.size(), 3u);
      for (std::size_t t = 0; t < 3; ++t) {
        double loss = 0;
        for (const TermLoss& part : reports[t].parts) loss += part.total.item();
        EXPECT_EQ(steps[t].loss(), loss) << name_of(device) << slices;
        EXPECT_EQ(steps[t].samples, 10);
        EXPECT_EQ(steps[t].rows, 10);
        for (const StepNumbers& same : {others[t], reports[t].host()})
          for (const char* name : {"loss", "loss_ce", "loss_kd", "accuracy"})
            EXPECT_EQ(same.sum(name), steps[t].sum(name)) << name << slices;
      }
    }
}

// What it lacks is computed in passes of one length: many short ones would cost as many long ones.
TEST(SlicedStep, a_cache_is_asked_once_about_a_batch) {
  for (const Device device : devices()) {
    const auto counted = std::make_shared<LinearModel>(6, 4);
    counted->initialize(5);
    counted->to(device);
    Sliced run({false, 4, 10, device});
    run.teacher = std::make_shared<Teacher>(counted);
    run.step();
    EXPECT_EQ(counted->forwards, 4);
    run.teacher->use_cache(
        std::make_shared<LogitCache>(LogitCacheKey{"data", run.teacher->hash(), 4}));
    for (std::int64_t i = 0; i < 10; ++i) run.batch.sample.push_back(i);
    counted->forwards = 0;
    run.step();
    EXPECT_EQ(counted->forwards, 1) << name_of(device);
    run.step();
    EXPECT_EQ(counted->forwards, 1) << name_of(device);
  }
}

// Micro-batches of a slice share its row: they change the order of its sums, not its place.
TEST(SlicedStep, a_row_of_the_meter_is_a_slice) {
  Sliced run({false, 4, 12});
  run.settings.micro_batch = 2;
  const StepReport report = run.step();
  EXPECT_EQ(report.slice_rows, (std::vector<std::int64_t>{0, 0, 1, 1, 2, 2, 3, 3}));
  EXPECT_EQ(report.rows, (std::vector<std::int64_t>{2, 1, 2, 1, 2, 1, 2, 1}));
  StepMeter meter(2);  // has more rows if the first step wants them
  run.step(&meter);
  EXPECT_EQ(meter.rows().dim(0), 4);
  Sliced more({false, 6, 12});
  EXPECT_THROW(more.step(&meter), Error);
}

TEST(SlicedStep, a_step_that_throws_leaves_nothing_behind) {
  for (const Device device : devices())
    for (const int at : {1, 3, 4}) {
      Sliced run({true, 4, 10, device}), plain({true, 4, 10, device});
      const auto breaks = std::make_shared<Breaks>();
      const Terms terms = {soft_targets()[0], {1, breaks}};
      StepMeter meter, want;
      breaks->at = at;
      EXPECT_THROW(run.step(&meter, terms), Error);
      EXPECT_TRUE(meter.empty());
      run.step(&meter, terms);
      breaks->at = -1;
      plain.step(&want, terms);
      EXPECT_TRUE(same_bytes(run.gradient, plain.gradient)) << name_of(device) << at;
      EXPECT_EQ(meter.summary().loss(), want.summary().loss());
      // Running statistics move with the update, and there was none.
      for (const auto& [name, buffer] : run.student->named_buffers())
        for (const float v : buffer.to_vector<float>())
          EXPECT_EQ(v, name.ends_with("running_var") ? 1.0f : 0.0f) << name;
    }
}

}  // namespace
}  // namespace retort::test
