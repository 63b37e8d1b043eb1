#include "distill/schedules/staged.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "distill/terms/cosine.h"
#include "distill/terms/hidden_mse.h"
#include "nn/models/registry.h"
#include "tests/distill/breaks.h"
#include "tests/distill/models.h"
#include "tests/support/close.h"
#include "tests/support/random.h"
#include "tests/support/temporary_folder.h"

namespace retort::test {
namespace {

using namespace distill;

// A student of two hidden layers, two teachers, batches by step number.
struct Fixture {
  std::shared_ptr<TinyMlp> student =
      std::make_shared<TinyMlp>(6, std::vector<std::int64_t>{8, 7}, 3, 1);
  std::vector<std::shared_ptr<const Teacher>> teachers{
      std::make_shared<Teacher>(
          std::make_shared<TinyMlp>(6, std::vector<std::int64_t>{20, 19}, 3, 2)),
      std::make_shared<Teacher>(
          std::make_shared<TinyMlp>(6, std::vector<std::int64_t>{20, 19}, 3, 3))};
  int optimizers = 0;
  double weight_decay = 0;
  std::unique_ptr<StagedDistillation> run;

  explicit Fixture(std::vector<Stage> stages) {
    run = std::make_unique<StagedDistillation>(
        *student, run_teachers(), std::move(stages),
        [this](const nn::TrainedModules& modules) {
          ++optimizers;
          nn::SgdConfig config;
          config.momentum = 0.9;
          config.weight_decay = weight_decay;
          return std::make_unique<nn::Sgd>(modules, config);
        },
        [] { return calibration(); });
  }
  std::vector<RunTeacher> run_teachers() const {
    std::vector<RunTeacher> list;
    for (const auto& teacher : teachers) list.push_back({teacher});
    return list;
  }
  static nn::Batch calibration() { return {randn({64, 6}, 77), randint({64}, 78, 3)}; }
  static nn::Batch batch(std::int64_t step) {
    const auto seed = static_cast<std::uint64_t>(step) + 100;
    return {randn({10, 6}, seed), randint({10}, seed, 3)};
  }
  double step(const StepSettings& settings = {}) {
    return run->step(batch(run->steps()), settings, 0.05).loss();
  }
  std::vector<std::vector<float>> weights() const {
    std::vector<std::vector<float>> list;
    for (const auto& [name, p] : student->named_parameters())
      list.push_back(p.detach().to_vector<float>());
    return list;
  }
};

std::vector<Stage> extraction(ProjectionVariant variant, std::int64_t steps = 3) {
  return extraction_stages(2,
                           {.variant = variant, .width = 5, .until = {.steps = steps}, .seed = 9});
}

// As a checkpoint gives it back: a file keeps its tensors in an order of its own.
NamedTensors through_a_file(const NamedTensors& state) {
  const test::TemporaryFolder folder;
  const std::string path = folder / "stages.safetensors";
  write_safetensors(path, state);
  return read_safetensors(path);
}

// Terms belong to one student: each run has stages of its own.
void expect_same_bytes_after_any_stop(const std::function<std::vector<Stage>()>& stages,
                                      const char* what) {
  Fixture whole(stages());
  for (int i = 0; i < 9; ++i) whole.step();
  for (int stop = 0; stop <= 8; ++stop) {
    Fixture first(stages()), second(stages());
    for (int i = 0; i < stop; ++i) first.step();
    const NamedTensors state = through_a_file(first.run->state());
    const auto from = first.student->named_parameters(), to = second.student->named_parameters();
    for (std::size_t i = 0; i < to.size(); ++i)
      to[i].second.detach().copy_from(from[i].second.detach());
    second.run->load_state(state);
    EXPECT_EQ(second.run->stage_index(), first.run->stage_index());
    for (int i = stop; i < 9; ++i) second.step();
    EXPECT_EQ(second.weights(), whole.weights()) << what << " stopped at " << stop;
    EXPECT_EQ(second.run->starts(), whole.run->starts());
  }
}

TEST(StagedDistillation, stages_change_when_due_with_fresh_optimizers) {
  Fixture f(extraction(ProjectionVariant::kHead));
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(f.run->stage_index(), static_cast<std::size_t>(i / 3)) << i;
    EXPECT_EQ(f.run->step_in_stage(), i % 3);
    f.step();
    EXPECT_EQ(f.optimizers, i / 3 + 1);
  }
  EXPECT_EQ(f.run->starts(), (std::vector<std::int64_t>{0, 3, 6}));
  EXPECT_EQ(f.run->steps(), 8);
  EXPECT_EQ(f.run->stage().name, "distill");
}

TEST(StagedDistillation, progressive_keeps_its_optimizer_and_asks_each_teacher) {
  const std::vector<ProgressivePart> parts{{1, 2}};
  Fixture f(progressive_stages(parts, 0));
  f.step({.lambda = {1}});
  f.step({.lambda = {1}});
  const auto before = f.weights();
  // The third step is from teacher 0: its loss is the one of teacher 0 on the student as it is.
  const nn::Batch batch = Fixture::batch(2);
  const double want = distill_step(f.teachers[0].get(), *f.student, batch, {.lambda = {1}}, [&] {
                        f.run->optimizer()->zero_grad();
                      }).loss();
  EXPECT_EQ(f.weights(), before);
  EXPECT_EQ(f.step({.lambda = {1}}), want);
  EXPECT_EQ(f.optimizers, 1);
}

// Weight decay does not touch the others either, nor do the momenta of the stage before.
TEST(StagedDistillation, projection_trains_the_layers_below_only) {
  for (const ProjectionVariant variant :
       {ProjectionVariant::kPost, ProjectionVariant::kPre, ProjectionVariant::kHead}) {
    Fixture f(extraction(variant, 60));
    f.weight_decay = 0.01;
    const auto before = f.weights();  // w1 b1 w2 b2 w3 b3
    const double first = f.step();
    double last = 0;
    for (int i = 1; i < 60; ++i) last = f.step();
    const auto after = f.weights();
    EXPECT_NE(after[0], before[0]) << name_of(variant);
    for (std::size_t i = 2; i < 6; ++i) EXPECT_EQ(after[i], before[i]) << name_of(variant);
    EXPECT_LT(last, first) << name_of(variant);
    f.step();  // stage 2 reaches layer 2
    EXPECT_NE(f.weights()[2], before[2]);
    EXPECT_EQ(f.weights()[4], before[4]);
    for (int i = 0; i < 60; ++i) f.step();
    EXPECT_NE(f.weights()[4], before[4]);  // the last stage trains all
    for (const auto& [name, p] : f.student->named_parameters()) EXPECT_TRUE(p.requires_grad());
  }
}

TEST(StagedDistillation, settings_of_a_stage_override_those_of_the_step) {
  Stage stage{.name = "labels", .lambda = 0.0f};
  Fixture f({stage}), g(one_shot_stages());
  EXPECT_EQ(f.step({.lambda = {1}}), g.step({.lambda = {0}}));
}

TEST(StagedDistillation, plateau_ends_a_stage_early) {
  auto stages = extraction(ProjectionVariant::kPost, 1000);
  stages[0].until.window = 4;
  stages[0].until.min_improvement = 0.5;  // hardly ever reached
  Fixture f(stages);
  int steps = 0;
  while (f.run->stage_index() == 0 && steps < 100) f.step(), ++steps;
  EXPECT_EQ(steps, 8);  // two windows
}

TEST(StagedDistillation, a_run_that_is_loaded_goes_on_with_the_same_bytes) {
  for (const ProjectionVariant variant : {ProjectionVariant::kPost, ProjectionVariant::kHead}) {
    expect_same_bytes_after_any_stop(
        [variant] {
          auto stages = extraction(variant);
          stages[0].until.window = 2;
          return stages;
        },
        name_of(variant));
  }
}

// A stage of labels, soft targets, hints and angles, in front of a plain one.
std::vector<Stage> hints(std::int64_t steps = 4) {
  const Terms terms{{1, std::make_shared<SoftTargets>()},
                    {0.5f, std::make_shared<HiddenMse>(HiddenMseOptions{.seed = 3})},
                    {2, std::make_shared<Cosine>(CosineOptions{.seed = 4})}};
  return {{.name = "hints", .teachers = {1}, .terms = terms, .until = {.steps = steps}},
          {.name = "distill"}};
}

TEST(StagedDistillation, a_run_with_learned_maps_that_is_loaded_goes_on_with_the_same_bytes) {
  expect_same_bytes_after_any_stop([] { return hints(); }, "hints");
}

TEST(StagedDistillation, maps_of_terms_are_trained_kept_and_thrown_away) {
  Fixture f(hints(40));
  f.weight_decay = 0;
  const auto maps = [&] {
    std::map<std::string, std::vector<float>> found;
    for (const auto& [name, tensor] : f.run->state())
      if (name.starts_with("stages.") && name.find("_head.") != std::string::npos)
        found.emplace(name, tensor.to_vector<float>());
    return found;
  };
  EXPECT_TRUE(maps().empty());
  const StepReport first = f.run->step(Fixture::batch(0), {}, 0.05);
  const auto early = maps();
  for (const char* name :
       {"stages.hidden_mse_head.layer1.weight", "stages.hidden_mse_head.layer1.bias",
        "stages.hidden_mse_head.layer2.weight", "stages.hidden_mse_head.layer2.bias",
        "stages.cosine_head.weight"})
    EXPECT_EQ(early.count(name), 1u) << name;
  // The loss is the weighted sum of what the columns say.
  const StepNumbers s = first.host();
  EXPECT_TRUE(close(s.loss(),
                    0.5 * s.mean("loss_ce") + 0.5 * s.mean("loss_kd") +
                        0.5 * s.mean("loss_hidden") + 2 * s.mean("loss_cos"),
                    1e-5, 1e-6));
  StepReport last;
  for (int i = 1; i < 40; ++i) last = f.run->step(Fixture::batch(0), {}, 0.05);
  const auto late = maps();
  ASSERT_EQ(late.size(), early.size());
  for (const auto& [name, values] : early) EXPECT_NE(late.at(name), values) << name;
  EXPECT_LT(last.host().mean("loss_hidden"), s.mean("loss_hidden"));
  EXPECT_LT(last.host().mean("loss_cos"), s.mean("loss_cos"));
  f.step();  // the next stage
  EXPECT_TRUE(maps().empty());
  EXPECT_EQ(f.optimizers, 2);
}

TEST(StagedDistillation, a_stage_of_hints_alone_leaves_the_last_layer_as_it_is) {
  Stage stage{.name = "hints",
              .terms = {{1, std::make_shared<HiddenMse>(HiddenMseOptions{})}},
              .until = {.steps = 5}};
  Fixture f({stage, Stage{.name = "distill"}});
  const auto before = f.weights();
  f.step();
  EXPECT_NE(f.weights()[0], before[0]);
  EXPECT_NE(f.weights()[2], before[2]);
  EXPECT_EQ(f.weights()[4], before[4]);  // the loss does not reach it
}

// Behind a stage of hints alone, which freezes the last layer and trains maps.
TEST(StagedDistillation, a_stage_that_cannot_begin_can_be_tried_again) {
  const auto stages = [](const std::shared_ptr<Breaks>& breaks) {
    return std::vector<Stage>{
        Stage{.name = "hints",
              .terms = {{1, std::make_shared<HiddenMse>(HiddenMseOptions{})}},
              .until = {.steps = 2}},
        Stage{.name = "breaks", .terms = {soft_targets()[0], {1, breaks}}, .until = {.steps = 2}},
        Stage{.name = "distill"}};
  };
  const auto good = std::make_shared<Breaks>(), bad = std::make_shared<Breaks>();
  bad->begin_at = 0;
  Fixture plain(stages(good)), broken(stages(bad));
  for (int t = 0; t < 6; ++t) {
    plain.step();
    if (t == 2) {
      EXPECT_THROW(broken.step(), Error);
      EXPECT_TRUE(broken.student->training());
      EXPECT_EQ(broken.run->starts(), (std::vector<std::int64_t>{0}));
      EXPECT_EQ(broken.run->steps(), 2);
    }
    broken.step();
  }
  EXPECT_EQ(broken.weights(), plain.weights());
  EXPECT_EQ(broken.run->starts(), (std::vector<std::int64_t>{0, 2, 4}));
  EXPECT_EQ(broken.optimizers, plain.optimizers);
}

TEST(StagedDistillation, a_student_that_shares_memory_with_a_teacher_is_refused) {
  const auto error_of = [](nn::Model& student, const std::shared_ptr<const Teacher>& teacher) {
    try {
      StagedDistillation run(student, {{teacher}}, one_shot_stages(),
                             [](const nn::TrainedModules& modules) {
                               return std::make_unique<nn::Sgd>(modules, nn::SgdConfig{});
                             });
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUsage);
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  const auto make = [] { return std::make_shared<TinyMlp>(6, std::vector<std::int64_t>{8}, 3, 1); };
  const auto one = make(), other = make();
  const auto teacher = std::make_shared<const Teacher>(one, "big");
  EXPECT_NE(error_of(*one, teacher).find("is its own teacher 'big'"), std::string::npos);
  EXPECT_EQ(error_of(*other, teacher), "accepted");
  // One tensor is enough.
  other->visit_parameters([&](const std::string& path, Tensor& p) {
    if (path == "b1") p = one->named_parameters()[1].second.detach();
  });
  EXPECT_NE(error_of(*other, teacher).find("shares 'b1'"), std::string::npos);
}

TEST(StagedDistillation, micro_batches_give_the_same_projection_step) {
  Fixture f(extraction(ProjectionVariant::kHead)), g(extraction(ProjectionVariant::kHead));
  EXPECT_TRUE(close(f.step(), g.step({.micro_batch = 3}), 1e-5, 1e-6));
  const auto a = f.weights(), b = g.weights();
  for (std::size_t i = 0; i < a.size(); ++i)
    for (std::size_t j = 0; j < a[i].size(); ++j) EXPECT_TRUE(close(a[i][j], b[i][j], 1e-4, 1e-6));
}

TEST(StagedDistillation, extraction_between_convolutional_networks) {
  // Hidden layers are images here: averaged over the image, 3 stages of 16, 32 and 64 channels.
  const auto student = nn::make_model({.arch = "resnet8", .classes = 4, .seed = 1});
  const auto teacher =
      std::make_shared<Teacher>(nn::make_model({.arch = "resnet14", .classes = 4, .seed = 2}));
  const nn::Batch batch(randn({4, 32, 32, 3}, 3), randint({4}, 4, 4));
  StagedDistillation run(
      *student, {{teacher}},
      extraction_stages(3, {.variant = ProjectionVariant::kPost, .until = {.steps = 1}}),
      [](const nn::TrainedModules& modules) {
        return std::make_unique<nn::Sgd>(modules, nn::SgdConfig{});
      },
      [&] { return batch; });
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(run.stage_index(), static_cast<std::size_t>(i));
    const double loss = run.step(batch, {}, 0.01).loss();
    EXPECT_TRUE(std::isfinite(loss) && loss > 0) << loss;
  }
  EXPECT_TRUE(student->training());
}

// Stages with a projection, with either teacher and with another lambda: captured where they can
// be, with the bytes and the numbers of a run without graphs.
TEST(StagedDistillation, graphs_change_no_byte_of_a_run_through_the_stages) {
  if (!cuda_available()) GTEST_SKIP() << cuda_unavailable_reason();
  const auto stages = [] {
    std::vector<Stage> list = extraction(ProjectionVariant::kHead, 6);
    list.pop_back();
    list.push_back({.name = "first", .until = {.steps = 5}, .lambda = 0.25f});
    list.push_back({.name = "watched", .until = {.steps = 4, .window = 2}});
    list.push_back(hints(6).front());
    list.push_back({.name = "second", .teachers = {1}, .fresh_optimizer = false});
    return list;
  };
  struct OnCuda : Fixture {
    StepMeter meter;
    static nn::Batch on_cuda(const nn::Batch& b) {
      return {b.inputs[0].values.to(Device::kCuda), b.targets.to(Device::kCuda)};
    }
    OnCuda(std::vector<Stage> list, const GraphOptions& options) : Fixture({Stage{}}) {
      student->to(Device::kCuda);
      for (const auto& teacher : teachers) teacher->model().to(Device::kCuda);
      run = std::make_unique<StagedDistillation>(
          *student, run_teachers(), std::move(list),
          [](const nn::TrainedModules& modules) {
            nn::SgdConfig config;
            config.momentum = 0.9;
            return std::make_unique<nn::Sgd>(modules, config);
          },
          [] { return on_cuda(calibration()); });
      run->use_meter(meter, options);
    }
  };
  OnCuda eager(stages(), {.graph = false}), graphed(stages(), {});
  std::int64_t replays = 0;
  constexpr std::int64_t kSteps = 30;
  std::set<std::string> replayed;  // stages
  for (std::int64_t t = 0; t < kSteps; ++t)
    for (OnCuda* f : {&eager, &graphed}) {
      const nn::Batch batch = OnCuda::on_cuda(Fixture::batch(t));
      const std::string stage = f->run->stage().name;
      const std::int64_t before = f->run->graphed() ? f->run->graphed()->replays() : 0;
      EXPECT_EQ(
          f->run->step(batch, {.temperature = {2}}, 0.05 / static_cast<double>(t + 1)).samples, 10);
      if (f != &graphed || !f->run->graphed() || f->run->graphed()->replays() <= before) continue;
      ++replays;
      replayed.insert(stage);
    }
  EXPECT_GE(replays, 8);
  EXPECT_EQ(replayed.count("hints"), 1u);
  EXPECT_EQ(replayed.count("projection 1"), 1u);
  EXPECT_EQ(replayed.count("watched"), 0u);  // its losses are read as it goes
  EXPECT_EQ(eager.run->starts(), graphed.run->starts());
  const auto a = eager.student->named_parameters(), b = graphed.student->named_parameters();
  for (std::size_t i = 0; i < a.size(); ++i)
    EXPECT_TRUE(same_bytes(a[i].second.detach(), b[i].second.detach())) << a[i].first;
  const std::vector<StepNumbers> x = eager.meter.take(), y = graphed.meter.take();
  ASSERT_EQ(x.size(), static_cast<std::size_t>(kSteps));
  ASSERT_EQ(y.size(), x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(x[i].columns().size(), y[i].columns().size()) << i;
    for (std::size_t k = 0; k < x[i].columns().size(); ++k) {
      EXPECT_EQ(x[i].columns()[k].name, y[i].columns()[k].name) << i;
      EXPECT_EQ(x[i].columns()[k].sum, y[i].columns()[k].sum) << i;
    }
    EXPECT_EQ(x[i].samples, 10);
    EXPECT_EQ(y[i].samples, 10);
  }
}

TEST(StagedDistillation, errors) {
  EXPECT_THROW(Fixture(std::vector<Stage>{}), Error);
  EXPECT_THROW(Fixture({Stage{.name = "endless"}, Stage{.name = "never"}}), Error);
  EXPECT_THROW(Fixture({Stage{.name = "unknown", .teachers = {2}}}), Error);
  EXPECT_THROW(Fixture({Stage{.name = "nothing to learn", .terms = {}}}), Error);
  Fixture f(extraction_stages(3, {}));  // the student has two hidden layers
  f.run->load_state(f.run->state());
  auto stages = extraction_stages(3, {.until = {.steps = 1}});
  Fixture g(stages);
  g.step();
  g.step();
  EXPECT_THROW(g.step(), Error);
  EXPECT_THROW(g.run->load_state({}), Error);
}

}  // namespace
}  // namespace retort::test
