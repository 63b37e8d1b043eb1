// A captured step must give the bytes of the eager one: in its parameters, its optimizer's state,
// its running statistics and its numbers, step by step. Over 500 lines: a third is the pair of
// runs, captured and eager, that every test compares.
#include "distill/graphed_step.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "distill/terms/cosine.h"
#include "distill/terms/hidden_mse.h"
#include "distill/terms/projection.h"
#include "engine/autograd/autograd.h"
#include "nn/checkpoint/checkpoint.h"
#include "nn/data/image_source.h"
#include "nn/models/registry.h"
#include "tests/distill/breaks.h"
#include "tests/distill/models.h"
#include "tests/support/close.h"
#include "tests/support/own_convolution.h"
#include "tests/support/random.h"
#include "tests/support/temporary_folder.h"

namespace retort::test {
namespace {

using namespace distill;
using ::testing::HasSubstr;

constexpr Device kGpu = Device::kCuda;

struct Kind {
  std::string arch = "mlp";
  bool adamw = false;
  double clip = 0;
  DType dtype = DType::kF32;
  std::int64_t batch = 6;
  std::string augment = "none";
  bool own_teacher_inputs = false;    // the teacher is normalised in another way
  bool bf16_copy = false;             // of the parameters
  nn::Ints widths = {4, 4, 8, 8};     // of a resnet
  std::function<Terms()> terms = {};  // of each run its own; empty: soft targets
  std::int64_t slices = 1;            // of a batch
};

std::shared_ptr<nn::ImageDataset> images(const Kind& s, std::int64_t count) {
  const bool mlp = s.arch == "mlp";
  const std::int64_t channels = mlp ? 1 : 3, size = mlp ? 6 : 8;
  std::vector<std::int32_t> labels;
  for (std::int64_t i = 0; i < count; ++i) labels.push_back(static_cast<std::int32_t>(i * 7 % 10));
  return std::make_shared<nn::ImageDataset>(
      randint({count, channels, size, size}, 5, 256).to(DType::kU8), labels, 10, "test");
}

std::shared_ptr<nn::Model> model(const Kind& s, std::uint64_t seed) {
  nn::ModelConfig config{.arch = s.arch, .classes = 10, .seed = seed};
  if (s.arch == "mlp") {
    config.options.set("hidden", nn::Ints{seed == 2 ? 14 : 12});  // the teacher is wider
    config.input = {6, 6, 1};
  } else {
    config.options.set("widths", s.widths);
  }
  return nn::make_model(config);
}

// One training run, eager or captured.
struct Training {
  explicit Training(const Kind& s, const GraphOptions& options, Device device = kGpu)
      : setup(s), data(images(s, 20)), student(model(s, 1)), teacher_model(model(s, 2)) {
    student->to(device);
    teacher_model->to(device);
    teacher = std::make_shared<Teacher>(teacher_model);
    nn::SourceOptions o{.device = device, .seed = kSeed, .treatment = {{"augment", s.augment}}};
    o.readings = {nn::Reading{s.dtype}, nn::Reading{s.dtype}};
    if (s.own_teacher_inputs) o.readings[1].options.set("normalize", nn::Floats{0.5, 0.25});
    source = data->source(o);
    feed = source->device_feed();
    terms = s.terms ? s.terms() : soft_targets();
    const nn::Batch batch = nn::first_samples(*source, 4);
    const std::size_t reading = 1;
    const std::shared_ptr<const Teacher> one = teacher;
    nn::TrainedModules trained{{"", student.get()}};
    for (const auto& [weight, term] : terms) {
      term->begin({*student, std::span(&one, 1), std::span(&reading, 1), batch}, false);
      if (term->trained() != nullptr)
        trained.emplace_back(term->name() + "_head.", term->trained());
    }
    const auto common = [&](auto config) {
      config.clip_norm = s.clip;
      config.weight_decay = 0.01;
      config.decay_norm_and_bias = false;
      config.bf16_copy = s.bf16_copy;
      config.slices = s.slices;
      return config;
    };
    if (s.adamw) {
      optimizer = std::make_unique<nn::AdamW>(trained, common(nn::AdamWConfig{}));
    } else {
      auto config = common(nn::SgdConfig{});
      config.momentum = 0.9;
      optimizer = std::make_unique<nn::Sgd>(trained, config);
    }
    step =
        std::make_unique<GraphedStep>(run_teachers(), terms, *student, *optimizer, meter, options);
  }
  std::vector<RunTeacher> run_teachers() const { return {{teacher}}; }
  ~Training() { step.reset(); }

  // Settings and rates that change with every step.
  StepSettings settings(int t, bool per_sample, std::int64_t rows) const {
    StepSettings out;
    out.lambda = {0.2f + 0.1f * static_cast<float>(t % 5)};
    out.temperature = {1.0f + static_cast<float>(t % 3)};
    if (per_sample) {
      out.lambda.clear();
      for (std::int64_t i = 0; i < rows; ++i)
        out.lambda.push_back(static_cast<float>((i + t) % 4) / 4);
    }
    return out;
  }
  static double rate(int t) { return 0.05 / (1 + t); }

  static constexpr std::uint64_t kSeed = 77;  // of the source

  // Epochs of 20 samples in batches: the last one is smaller. Step t of the run.
  FeedBatch place(int t) const {
    const std::int64_t steps = (20 + setup.batch - 1) / setup.batch, epoch = t / steps,
                       begin = t % steps * setup.batch;
    return {begin, std::min(setup.batch, 20 - begin), epoch, kSeed};
  }
  void set_order(std::int64_t epoch) {
    std::vector<std::int64_t> order;
    for (std::int64_t i = 0; i < 20; ++i) order.push_back((i * 7 + epoch * 3) % 20);
    feed->set_order(order);
  }
  void feed_step(int t, bool per_sample) {
    const FeedBatch at = place(t), next = place(t + 1);
    if (at.begin == 0) set_order(at.epoch);
    step->step(*feed, at, settings(t, per_sample, at.rows), rate(t),
               next.epoch == at.epoch ? &next : nullptr);
  }
  nn::Batch tensors(int t) const {
    std::vector<std::int64_t> samples;
    const FeedBatch at = place(t);
    for (std::int64_t i = 0; i < at.rows; ++i) samples.push_back((at.begin + i) * 3 % 20);
    nn::Batch batch = source->make(samples, static_cast<std::uint32_t>(at.epoch));
    batch.sample.clear();  // nobody's cache
    batch.variant.clear();
    return batch;
  }

  Kind setup;
  std::shared_ptr<nn::ImageDataset> data;
  std::shared_ptr<nn::Model> student, teacher_model;
  std::shared_ptr<Teacher> teacher;
  std::unique_ptr<nn::Optimizer> optimizer;
  std::shared_ptr<const nn::Source> source;
  std::unique_ptr<nn::DeviceFeed> feed;
  Terms terms;
  StepMeter meter;
  std::unique_ptr<GraphedStep> step;
};

// Numbers of b are those of `x`.
void expect_same(Training& a, Training& b, const std::vector<StepNumbers>& x,
                 const std::string& what) {
  const auto same = [&](const nn::Module::Named& x, const nn::Module::Named& y) {
    ASSERT_EQ(x.size(), y.size());
    for (std::size_t i = 0; i < x.size(); ++i)
      EXPECT_TRUE(same_bytes(x[i].second.detach(), y[i].second.detach()))
          << what << ": " << x[i].first;
  };
  same(a.student->named_parameters(), b.student->named_parameters());
  same(a.student->named_buffers(), b.student->named_buffers());
  same(a.optimizer->state(), b.optimizer->state());
  const std::vector<StepNumbers> y = b.meter.take();
  ASSERT_EQ(x.size(), y.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto &p = x[i].columns(), &q = y[i].columns();
    ASSERT_EQ(p.size(), q.size()) << what << ", step " << i;
    for (std::size_t k = 0; k < p.size(); ++k) {
      EXPECT_EQ(p[k].name, q[k].name) << what << ", step " << i;
      EXPECT_EQ(p[k].sum, q[k].sum) << what << ", step " << i << ", " << p[k].name;
      EXPECT_EQ(p[k].weight, q[k].weight) << what << ", step " << i << ", " << p[k].name;
    }
    EXPECT_EQ(x[i].samples, y[i].samples);
    EXPECT_EQ(x[i].rows, y[i].rows);
  }
}

class GraphedStepTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_available()) GTEST_SKIP() << cuda_unavailable_reason();
  }
};

TEST_F(GraphedStepTest, replays_give_the_bytes_of_eager_steps) {
  struct Case {
    Kind setup;
    bool per_sample;
    int steps;
  };
  const std::string flip = "crop_flip";
  const auto hints = [] {
    return Terms{{1, std::make_shared<SoftTargets>()},
                 {0.5f, std::make_shared<HiddenMse>(HiddenMseOptions{.seed = 3})}};
  };
  const auto angles = [] {
    return Terms{{0.5f, std::make_shared<SoftTargets>()},
                 {2, std::make_shared<Cosine>(CosineOptions{})},
                 {1, std::make_shared<HiddenMse>(HiddenMseOptions{})}};
  };
  const auto projection = [] {
    return Terms{{1, std::make_shared<Projection>(ProjectionOptions{.seed = 5})}};
  };
  const auto parts = [] { return soft_targets({.logits_memory = 100}); };
  const std::vector<Case> cases{
      {{.arch = "mlp"}, false, 14},
      {{.arch = "mlp", .adamw = true, .terms = parts}, true, 14},
      {{.arch = "mlp", .clip = 0.1, .own_teacher_inputs = true}, true, 14},
      {{.arch = "mlp", .adamw = true, .clip = 0.1, .augment = flip}, true, 14},
      {{.arch = "resnet8", .clip = 0.5, .augment = flip}, true, 9},
      {{.arch = "resnet8", .adamw = true, .dtype = DType::kBF16, .augment = flip}, false, 9},
      {{.arch = "mlp", .augment = flip, .own_teacher_inputs = true, .terms = hints}, true, 14},
      {{.arch = "mlp", .adamw = true, .terms = angles}, false, 14},
      {{.arch = "mlp", .augment = flip, .terms = projection}, false, 14},
      {{.arch = "resnet8", .dtype = DType::kBF16, .batch = 4, .terms = angles}, false, 9},
      // The last batch of an epoch has two samples: slices stay empty there.
      {{.arch = "mlp", .adamw = true, .clip = 0.1, .augment = flip, .slices = 4}, true, 14},
      {{.arch = "mlp", .own_teacher_inputs = true, .terms = hints, .slices = 3}, false, 14},
      {{.arch = "resnet8",
        .clip = 0.5,
        .dtype = DType::kBF16,
        .augment = flip,
        .bf16_copy = true,
        .slices = 3},
       true,
       9},
  };
  int number = 0;
  for (const Case& c : cases) {
    Training eager(c.setup, {.graph = false}), graphed(c.setup, {}),
        overlapped(c.setup, {.overlap = true});
    for (int t = 0; t < c.steps; ++t)
      for (Training* run : {&eager, &graphed, &overlapped}) run->feed_step(t, c.per_sample);
    EXPECT_EQ(eager.step->replays(), 0);
    EXPECT_GE(graphed.step->replays(), c.steps / 3) << graphed.step->reason();
    EXPECT_GE(overlapped.step->replays(), 2) << overlapped.step->reason();
    const std::string what = "case " + std::to_string(number++);
    const std::vector<StepNumbers> numbers = eager.meter.take();
    EXPECT_NE(numbers.front().loss(), numbers.back().loss());
    expect_same(eager, graphed, numbers, what);
    expect_same(eager, overlapped, numbers, what + ", overlapped");
  }
}

// Against a loop that knows nothing of graphs: distill_step and the optimizer's own step.
TEST_F(GraphedStepTest, replays_give_the_bytes_of_an_ordinary_loop) {
  for (const bool adamw : {false, true}) {
    const Kind kind{.arch = "mlp", .adamw = adamw, .clip = 0.1, .augment = "crop_flip"};
    Training plain(kind, {}), graphed(kind, {});
    plain.step.reset();
    for (int t = 0; t < 14; ++t) {
      graphed.feed_step(t, true);
      const FeedBatch at = plain.place(t);
      if (at.begin == 0) plain.set_order(at.epoch);
      const nn::Batch batch = plain.feed->host_batch(at);
      plain.optimizer->set_learning_rate(Training::rate(t));
      eager_step(
          plain.run_teachers(), plain.terms, *plain.student, batch,
          plain.settings(t, true, at.rows),
          [&] {
            plain.optimizer->step();
            plain.optimizer->zero_grad();
          },
          &plain.meter);
    }
    EXPECT_GE(graphed.step->replays(), 5);
    expect_same(plain, graphed, plain.meter.take(), adamw ? "adamw" : "sgd");
  }
}

TEST_F(GraphedStepTest, tensor_batches_are_replayed_too) {
  for (const bool overlap : {false, true}) {
    const Kind setup{.arch = "mlp", .own_teacher_inputs = overlap};
    Training eager(setup, {.graph = false}), graphed(setup, {.overlap = overlap});
    for (Training* run : {&eager, &graphed}) {
      nn::Batch now = run->tensors(0);
      for (int t = 0; t < 13; ++t) {
        const nn::Batch next = run->tensors(t + 1);
        run->step->step(now, run->settings(t, t % 2 == 1, run->place(t).rows), Training::rate(t),
                        &next);
        now = next;
      }
    }
    EXPECT_GE(graphed.step->replays(), 3);
    expect_same(eager, graphed, eager.meter.take(), overlap ? "overlapped" : "plain");
  }
}

TEST_F(GraphedStepTest, ignored_rows_are_no_samples) {
  Training graphed({.arch = "mlp"}, {}), sliced({.arch = "mlp"}, {});
  for (int t = 0; t < 13; ++t)
    for (Training* run : {&graphed, &sliced}) {
      nn::Batch batch = run->tensors(0);
      batch.targets.slice(t % 2, t % 2 + 2).fill(-100);
      StepSettings settings = run->settings(t, false, 6);
      if (run == &sliced) settings.micro_batch = 4;
      run->step->step(batch, settings, Training::rate(t));
    }
  EXPECT_GE(graphed.step->replays(), 3);
  const std::vector<StepNumbers> a = graphed.meter.take(), b = sliced.meter.take();
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].rows, 4) << i;
    EXPECT_EQ(b[i].rows, 4) << i;
    EXPECT_EQ(a[i].samples, 6) << i;
    EXPECT_TRUE(close(b[i].loss(), a[i].loss(), 1e-4, 1e-5)) << i;
  }
}

TEST_F(GraphedStepTest, a_replay_notices_that_parameters_were_frozen) {
  Training run({.arch = "mlp"}, {});
  for (int t = 0; t < 8; ++t) run.step->step(run.tensors(0), run.settings(0, false, 6), 0.1);
  EXPECT_GE(run.step->replays(), 1);
  run.student->requires_grad(false);
  EXPECT_THROW(run.step->step(run.tensors(0), run.settings(0, false, 6), 0.1), Error);
  nn::Batch longer = run.tensors(0);
  longer.targets = randint({7}, 1, 10).to(kGpu);
  EXPECT_THROW(run.step->step(longer, run.settings(0, false, 6), 0.1), Error);
}

// In each rehearsal, in the capture (which falls back), and never again; eager and captured.
TEST_F(GraphedStepTest, a_step_that_throws_leaves_nothing_behind) {
  struct Case {
    GraphOptions options;
    std::int64_t micro_batch;
  };
  constexpr int kSteps = 6;
  const GraphOptions eager{.graph = false}, captured{}, overlapped{.overlap = true};
  for (const Case& c : {Case{eager, 0}, {eager, 4}, {captured, 0}, {overlapped, 0}}) {
    std::shared_ptr<Breaks> breaks;  // of the training made last
    const Kind setup{.arch = "mlp", .terms = [&] {
                       breaks = std::make_shared<Breaks>();
                       return Terms{soft_targets()[0], {1, breaks}};
                     }};
    const auto step = [&](Training& run, int t) {
      StepSettings settings = run.settings(t, false, 6);
      settings.micro_batch = c.micro_batch;
      const FeedBatch next = run.place(t + 1);
      if (t == 0) run.set_order(0);
      run.step->step(*run.feed, {run.place(t % 3).begin, 6, 0, Training::kSeed}, settings, 0.1,
                     t % 3 == 2 ? nullptr : &next);
    };
    Training plain(setup, c.options);
    for (int t = 0; t < kSteps; ++t) step(plain, t);
    const std::vector<StepNumbers> want = plain.meter.take();
    for (int at = 1; at <= 4; ++at) {
      Training broken(setup, c.options);
      breaks->at = at;
      int thrown = 0;
      for (int t = 0; t < kSteps; ++t) {
        const std::int64_t before = broken.optimizer->steps();
        try {
          step(broken, t);
        } catch (const Error&) {
          ++thrown;
          EXPECT_EQ(broken.optimizer->steps(), before);
          EXPECT_EQ(broken.meter.size(), t);
          step(broken, t);
        }
      }
      EXPECT_LE(thrown, 1);
      EXPECT_TRUE(thrown == 1 || c.options.graph) << at;
      expect_same(plain, broken, want, join("at ", at));
    }
  }
}

TEST_F(GraphedStepTest, a_lookup_that_throws_before_a_replay_leaves_nothing_behind) {
  const Kind setup{.arch = "mlp"};
  Training plain(setup, {}), broken(setup, {});
  for (Training* run : {&plain, &broken}) {
    run->teacher->use_cache(std::make_shared<LogitCache>(
        LogitCacheKey{nn::hex(run->data->hash()), run->teacher->hash(), run->teacher->classes()}));
    const auto step = [&](std::size_t samples) {
      nn::Batch batch = run->tensors(0);
      for (std::size_t i = 0; i < samples; ++i)
        batch.sample.push_back(static_cast<std::int64_t>(i));
      run->step->step(batch, run->settings(0, false, 6), 0.1);
    };
    for (int t = 0; t < 8; ++t) {
      if (run == &broken && t > 3) {
        EXPECT_THROW(step(5), Error);
      }
      step(6);
    }
    EXPECT_GE(run->step->replays(), 3) << run->step->reason();
    EXPECT_EQ(run->optimizer->steps(), 8);
  }
  expect_same(plain, broken, plain.meter.take(), "lookup");
}

// Rows held, rows to be computed (new keys every epoch), and rows that the cache has no room for.
TEST_F(GraphedStepTest, logits_from_a_cache_are_replayed_too) {
  struct Case {
    const char* augment;
    std::uint64_t rows;  // room for so many
    bool tensors;
    std::int64_t slices = 1;
  };
  for (const Case& c : {Case{"none", 1000, false},
                        {"none", 1000, true},
                        {"none", 7, false},
                        {"crop_flip", 1000, false},
                        {"none", 1000, false, 4},
                        {"none", 1000, true, 3}}) {
    const Kind setup{
        .arch = "mlp", .augment = c.augment, .own_teacher_inputs = true, .slices = c.slices};
    Training eager(setup, {.graph = false}), graphed(setup, {.overlap = true});
    for (Training* run : {&eager, &graphed}) {
      const auto cache = std::make_shared<LogitCache>(
          LogitCacheKey{nn::hex(run->data->hash()), run->teacher->hash(), run->teacher->classes()},
          c.rows * 56);
      run->teacher->use_cache(cache);
      for (int t = 0; t < 16; ++t) {
        if (!c.tensors) {
          run->feed_step(t, t % 2 == 1);
          continue;
        }
        nn::Batch batch = run->tensors(t);
        for (std::int64_t i = 0; i < run->place(t).rows; ++i)
          batch.sample.push_back((run->place(t).begin + i) * 3 % 20);
        run->step->step(batch, run->settings(t, t % 2 == 1, run->place(t).rows), Training::rate(t));
      }
      const LogitCacheStatistics statistics = cache->statistics();
      EXPECT_EQ(statistics.entries,
                std::string(c.augment) == "none"
                    ? std::min<std::int64_t>(20, static_cast<std::int64_t>(c.rows))
                    : 80);
      EXPECT_EQ(statistics.hits + statistics.misses, 80u);
      EXPECT_EQ(statistics.refused > 0, c.rows < 20);
    }
    EXPECT_GE(graphed.step->replays(), 4) << graphed.step->reason();
    expect_same(eager, graphed, eager.meter.take(), join("room for ", c.rows));
  }
}

// Who takes the cache away, or gives one, has the step that goes with it.
TEST_F(GraphedStepTest, a_cache_may_come_and_go) {
  const Kind setup{.arch = "mlp"};
  Training eager(setup, {.graph = false}), graphed(setup, {});
  for (Training* run : {&eager, &graphed})
    for (int t = 0; t < 36; ++t) {
      if (t % 12 == 0)
        run->teacher->use_cache(t == 12 ? std::make_shared<LogitCache>(LogitCacheKey{
                                              nn::hex(run->data->hash()), run->teacher->hash(),
                                              run->teacher->classes()})
                                        : nullptr);
      run->feed_step(t, false);
    }
  EXPECT_GE(graphed.step->replays(), 15) << graphed.step->reason();
  expect_same(eager, graphed, eager.meter.take(), "with and without");
}

// The memory of a feed that is gone may be a new one's: its steps are captured anew.
TEST_F(GraphedStepTest, a_feed_made_anew_is_not_taken_for_the_one_before) {
  const Kind setup{.arch = "mlp"};
  Training eager(setup, {.graph = false}), graphed(setup, {});
  for (Training* run : {&eager, &graphed})
    for (int t = 0; t < 24; ++t) {
      if (t == 12) {
        run->feed.reset();
        const nn::SourceOptions options = run->source->options();
        std::vector<std::int32_t> labels(20, 3);
        run->data = std::make_shared<nn::ImageDataset>(
            randint({20, 1, 6, 6}, 6, 256).to(DType::kU8), labels, 10, "test");
        run->source = run->data->source(options);
        run->feed = run->source->device_feed();
      }
      run->feed_step(t, false);
    }
  EXPECT_GE(graphed.step->replays(), 6) << graphed.step->reason();
  expect_same(eager, graphed, eager.meter.take(), "two feeds");
}

// A next batch that was named and did not come must not lend its teacher's logits to another.
TEST_F(GraphedStepTest, a_next_batch_that_does_not_come_is_no_harm) {
  const Kind setup{.arch = "mlp"};
  Training eager(setup, {.graph = false}), graphed(setup, {.overlap = true});
  for (Training* run : {&eager, &graphed}) {
    run->set_order(0);
    for (int t = 0; t < 12; ++t) {
      constexpr std::uint64_t kSeed = Training::kSeed;
      const FeedBatch at{t % 3 * 6, 6, 0, kSeed}, wrong{(t + 2) % 3 * 6, 6, 0, kSeed};
      if (t == 9) run->set_order(1);  // the same places, other samples
      const FeedBatch right{(t + 1) % 3 * 6, 6, 0, kSeed};
      run->step->step(*run->feed, at, run->settings(t, false, 6), 0.01, t == 8 ? &right : &wrong);
    }
  }
  EXPECT_GE(graphed.step->replays(), 8);
  expect_same(eager, graphed, eager.meter.take(), "wrong next");
}

// A replay reads the bf16 copies of its time: after updates, and after weights came from elsewhere.
TEST_F(GraphedStepTest, bf16_copies_change_no_byte_of_a_replay_and_save_a_launch_per_convolution) {
  if (!convolutions_are_own()) GTEST_SKIP() << "a library's convolution has launches of its own";
  Kind kind{.arch = "resnet8", .dtype = DType::kBF16, .batch = 4, .widths = {8, 8, 8, 16}};
  Training plain(kind, {.graph = false}), rounding(kind, {});
  kind.bf16_copy = true;
  Training eager(kind, {.graph = false}), graphed(kind, {});
  for (int t = 0; t < 12; ++t) {
    if (t == 8)
      for (Training* run : {&plain, &rounding, &eager, &graphed}) {
        const auto other = model(kind, 5);
        const auto from = other->named_parameters(), to = run->student->named_parameters();
        for (std::size_t i = 0; i < to.size(); ++i) to[i].second.copy_from(from[i].second);
      }
    for (Training* run : {&plain, &rounding, &eager, &graphed}) run->feed_step(t, false);
  }
  EXPECT_GE(graphed.step->replays(), 8);
  const GraphInfo with = graphed.step->info(), without = rounding.step->info();
  int whole_chunks = 0;  // convolutions whose filters need no padding: all but the first
  for (const auto& [path, p] : graphed.student->named_parameters())
    if (p.rank() == 4 && p.numel() / p.dim(0) % 8 == 0) ++whole_chunks;
  EXPECT_EQ(whole_chunks, 6);
  EXPECT_EQ(without.kernels - with.kernels, whole_chunks);
  EXPECT_EQ(with.copies, without.copies);
  const std::vector<StepNumbers> numbers = plain.meter.take();
  expect_same(plain, eager, numbers, "eager");
  expect_same(plain, graphed, numbers, "graphed");
}

// Gradients are written where the optimizer reads them: no copy per parameter.
TEST_F(GraphedStepTest, a_captured_resnet_step_copies_nothing) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    Training run({.arch = "resnet8", .clip = 0.5, .dtype = dtype, .batch = 4}, {});
    EXPECT_EQ(run.step->info().kernels, 0);
    for (int t = 0; t < 5; ++t) run.feed_step(t, false);
    ASSERT_GT(run.step->replays(), 0);
    EXPECT_GT(run.step->info().kernels, 60);
    EXPECT_EQ(run.step->info().copies, 0) << name_of(dtype);
  }
}

TEST_F(GraphedStepTest, resumes_from_a_checkpoint_between_replays) {
  for (const bool adamw : {false, true}) {
    Kind setup{.arch = "mlp", .adamw = adamw, .clip = 0.2};
    if (adamw) {
      setup.arch = "resnet8";
      setup.dtype = DType::kBF16;
      setup.bf16_copy = true;
      setup.widths = {8, 8, 8, 8};
    }
    Training whole(setup, {}), first(setup, {}), second(setup, {});
    TemporaryFolder folder;
    for (int t = 0; t < 18; ++t) whole.feed_step(t, true);
    for (int t = 0; t < 10; ++t) first.feed_step(t, true);
    EXPECT_GT(first.step->replays(), 0);
    const nn::TrainedModules saved{{"", first.student.get()}}, loaded{{"", second.student.get()}};
    nn::write_checkpoint(folder.path(),
                         nn::checkpoint_of(10, saved, *first.optimizer, Json::object()));
    nn::restore_checkpoint(*nn::read_newest_valid(folder.path()), loaded, second.optimizer.get());
    second.set_order(second.place(10).epoch);
    for (int t = 10; t < 18; ++t) second.feed_step(t, true);
    EXPECT_GT(second.step->replays(), 0);
    std::vector<StepNumbers> numbers = whole.meter.take();
    numbers.erase(numbers.begin(), numbers.begin() + 10);
    expect_same(whole, second, numbers, adamw ? "adamw" : "sgd");
  }
}

TEST_F(GraphedStepTest, what_cannot_be_captured_runs_eagerly_and_says_why) {
  const Kind setup{.arch = "mlp"};
  const auto reason_of = [&](Training& run, const std::function<void(int)>& one) {
    for (int t = 0; t < 5; ++t) one(t);
    EXPECT_EQ(run.step->replays(), 0);
    EXPECT_EQ(run.meter.size(), 5);
    return run.step->reason();
  };
  {
    Training run(setup, {.graph = false});
    EXPECT_THAT(reason_of(run, [&](int t) { run.feed_step(t, false); }), HasSubstr("switched off"));
  }
  {
    Training run(setup, {}, Device::kCpu);
    EXPECT_THAT(reason_of(run, [&](int t) { run.feed_step(t, false); }), HasSubstr("the CPU"));
  }
  {
    Training run(setup, {}), eager(setup, {.graph = false});
    const auto cut = [](Training& r) {
      return [&r](int t) {
        StepSettings settings = r.settings(t, true, 6);
        settings.micro_batch = 4;
        r.set_order(0);
        r.step->step(*r.feed, {0, 6, 0, Training::kSeed}, settings, 0.1);
      };
    };
    EXPECT_THAT(reason_of(run, cut(run)), HasSubstr("micro-batches"));
    Training in_slices({.arch = "mlp", .slices = 2}, {});  // of three samples: four pass at once
    for (int t = 0; t < 5; ++t) cut(in_slices)(t);
    EXPECT_GT(in_slices.step->replays(), 0) << in_slices.step->reason();
    reason_of(eager, cut(eager));
    expect_same(eager, run, eager.meter.take(), "micro-batches");
  }
  {
    Training run(setup, {});
    const auto hook =
        on_gradient_ready(run.student->named_parameters()[0].second, [](const Tensor&) {});
    EXPECT_THAT(reason_of(run, [&](int t) { run.feed_step(t, false); }), HasSubstr("a hook"));
  }
}

// A model that looks at its activations on the host.
class Curious : public nn::Model {
 public:
  explicit Curious(std::shared_ptr<nn::Model> inner) : inner_(add_module("inner", inner)) {}
  nn::Outputs forward(const nn::Inputs& x, const nn::Want& want) override {
    nn::Outputs result = inner_.forward(x, want);
    if (training()) last = result.logits.to_vector<float>()[0];
    return result;
  }
  nn::ModelFacts facts() const override { return inner_.facts(); }
  float last = 0;

 private:
  nn::Model& inner_;
};

TEST_F(GraphedStepTest, tokens_are_not_captured) {
  TinyMlp student(4, {6}, 3, 1);
  student.to(kGpu);
  nn::Sgd optimizer(student, {});
  StepMeter meter;
  GraphedStep step({}, soft_targets(), student, optimizer, meter);
  nn::Batch batch(nn::Inputs(randn({6, 4}, 1).to(kGpu)), randint({6}, 2, 3).to(kGpu));
  batch.inputs[0].starts = Tensor::from<std::int32_t>({0, 1, 2, 3, 4, 5, 6}, {7}, kGpu);
  batch.inputs[0].starts_on_host = {0, 1, 2, 3, 4, 5, 6};
  for (int t = 0; t < 5; ++t) step.step(batch, {.lambda = {0}}, 0.1);
  EXPECT_EQ(step.replays(), 0);
  EXPECT_THAT(step.reason(), HasSubstr("the number of tokens differs"));
}

TEST_F(GraphedStepTest, a_step_that_reads_back_falls_back_and_trains_on) {
  const Kind setup{.arch = "mlp"};
  Training plain(setup, {.graph = false}), run(setup, {});
  run.step.reset();
  Curious curious(run.student);
  run.optimizer = std::make_unique<nn::Sgd>(nn::TrainedModules{{"", run.student.get()}}, [] {
    nn::SgdConfig config;
    config.momentum = 0.9;
    config.weight_decay = 0.01;
    config.decay_norm_and_bias = false;
    return config;
  }());
  run.step = std::make_unique<GraphedStep>(run.run_teachers(), run.terms, curious, *run.optimizer,
                                           run.meter);
  for (int t = 0; t < 11; ++t) {
    plain.feed_step(t, false);
    run.feed_step(t, false);
  }
  EXPECT_EQ(run.step->replays(), 0);
  EXPECT_THAT(run.step->reason(), HasSubstr("to pageable host memory cannot be captured (after the "
                                            "launch of '"));
  expect_same(plain, run, plain.meter.take(), "fallback");
}

TEST_F(GraphedStepTest, a_replay_is_one_launch_without_new_memory) {
  Training run({.arch = "resnet8", .clip = 0.5, .batch = 4}, {});
  int t = 0;
  for (; t < 5; ++t) run.feed_step(t, false);
  ASSERT_GT(run.step->replays(), 0);
  const std::uint64_t launches = cuda_runtime.launches();
  const MemoryStatistics before = memory_statistics(kGpu);
  run.set_order(1);
  const std::int64_t replays = run.step->replays();
  for (; t < 9; ++t)
    run.step->step(*run.feed, {t % 5 * 4, 4, 1, Training::kSeed}, run.settings(t, false, 4), 0.01);
  EXPECT_EQ(run.step->replays(), replays + 4);
  EXPECT_EQ(cuda_runtime.launches(), launches);
  const MemoryStatistics after = memory_statistics(kGpu);
  EXPECT_EQ(after.current_bytes, before.current_bytes);
  EXPECT_EQ(run.step->reason(), "");
  EXPECT_EQ(run.step->graphs(), 1);
  EXPECT_GT(run.step->memory_bytes(), 0u);
}

}  // namespace
}  // namespace retort::test
