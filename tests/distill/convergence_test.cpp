// The claims of the project in small.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/autograd/autograd.h"
#include "kernels/common/parallel.h"
#include "tests/distill/metrics/evaluation_meter.h"
#include "tests/distill/models.h"
#include "tests/distill/parity_study.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using namespace distill;

#if defined(RETORT_SANITIZED)
constexpr bool kSlowBuild = true;
#else
constexpr bool kSlowBuild = false;
#endif

std::unique_ptr<nn::Optimizer> sgd(nn::Module& model, double rate, double momentum) {
  nn::SgdConfig config;
  config.learning_rate = rate;
  config.momentum = momentum;
  return std::make_unique<nn::Sgd>(model, config);
}

TEST(Convergence, overfits_one_batch_to_near_zero) {
  TinyMlp model(12, {64}, 5, 1);
  const auto optimizer = sgd(model, 0.1, 0.9);
  const Tensor x = randn({32, 12}, 1), y = randint({32}, 2, 5);
  double loss = 0;
  for (int i = 0; i < 500; ++i)
    loss = distill_step(nullptr, model, {x, y}, {.lambda = {0}}, [&] {
             optimizer->step();
             optimizer->zero_grad();
           }).loss();
  EXPECT_LT(loss, 5e-3);
}

TEST(Convergence, a_student_can_become_its_teacher) {
  // Same architecture, soft targets only: the KL to the teacher goes to zero.
  const Teacher teacher(std::make_shared<TinyMlp>(8, std::vector<std::int64_t>{16}, 4, 1));
  TinyMlp student(8, {64}, 4, 2);
  const auto optimizer = sgd(student, 0.2, 0.9);
  const Tensor x = randn({256, 8}, 3);
  double first = -1, last = 0;
  for (int i = 0; i < 600; ++i) {
    last = distill_step(&teacher, student, {x, {}}, {.lambda = {1}}, [&] {
             optimizer->step();
             optimizer->zero_grad();
           }).loss();
    if (first < 0) first = last;
  }
  EXPECT_LT(last, first / 100);
}

// Labels by a hidden network, one in four replaced at random in the training set. A teacher is
// trained on many samples; students see few.
struct Toy {
  static constexpr std::int64_t kIn = 16, kClasses = 6;
  TinyMlp truth{kIn, {24}, kClasses, 99};
  Toy() {
    for (const auto& [name, p] : truth.named_parameters()) {  // wide margins: few close calls
      std::vector<float> v = p.detach().to_vector<float>();
      for (float& e : v) e *= 3;
      p.detach().copy_from(Tensor::from(v, p.shape()));
    }
  }
  struct Set {
    Tensor x, y;
  };
  Set make(std::int64_t n, std::uint64_t seed, bool noisy) {
    const Tensor x = randn({n, kIn}, seed);
    const NoGrad no_grad;
    const std::vector<float> z = truth.forward(x, {}).logits.to_vector<float>();
    std::vector<std::int32_t> y;
    for (std::int64_t i = 0; i < n; ++i) {
      const auto row = z.begin() + i * kClasses;
      const Philox4 r = philox(seed, static_cast<std::uint32_t>(i), 1, 2, 3);
      y.push_back(noisy && r.v[0] % 4 == 0
                      ? static_cast<std::int32_t>(r.v[1] % kClasses)
                      : static_cast<std::int32_t>(std::max_element(row, row + kClasses) - row));
    }
    return {x, Tensor::from(y, {n})};
  }
};

double train(nn::Model& model, const Teacher* teacher, const Toy::Set& data, const Toy::Set& test,
             int steps, double rate, float lambda, float temperature) {
  const auto optimizer = sgd(model, rate, 0.9);
  const std::int64_t n = data.x.dim(0), batch = std::min<std::int64_t>(64, n);
  for (int i = 0; i < steps; ++i) {
    const std::int64_t at = i * batch % (n - batch + 1);
    distill_step(teacher, model, {data.x.slice(at, at + batch), data.y.slice(at, at + batch)},
                 {.lambda = {lambda}, .temperature = {temperature}}, [&] {
                   optimizer->step();
                   optimizer->zero_grad();
                 });
  }
  const NoGrad no_grad;
  return accuracy_of(model.forward(test.x).logits, test.y);
}

TEST(Convergence, a_distilled_student_beats_its_twin_by_more_than_the_spread) {
  if (kSlowBuild) GTEST_SKIP() << "a minute in a sanitizer build";
  Toy toy;
  const Toy::Set much = toy.make(8192, 1, true), test = toy.make(2000, 2, false);
  const auto teacher_model =
      std::make_shared<TinyMlp>(Toy::kIn, std::vector<std::int64_t>{64}, Toy::kClasses, 5);
  const double teacher_accuracy = train(*teacher_model, nullptr, much, test, 3000, 0.02, 0, 1);
  const Teacher teacher(teacher_model);
  constexpr int kSeeds = 5;
  std::vector<double> gain;
  double alone = 0, distilled = 0;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Toy::Set few = toy.make(256, 100 + seed, true);
    TinyMlp twin(Toy::kIn, {32}, Toy::kClasses, seed), student(Toy::kIn, {32}, Toy::kClasses, seed);
    const double a = train(twin, nullptr, few, test, 600, 0.05, 0, 1);
    const double b = train(student, &teacher, few, test, 600, 0.05, 0.9f, 2);
    alone += a / kSeeds;
    distilled += b / kSeeds;
    gain.push_back(b - a);
  }
  double mean = 0, variance = 0;
  for (const double g : gain) mean += g / kSeeds;
  for (const double g : gain) variance += (g - mean) * (g - mean) / (kSeeds - 1);
  RecordProperty("teacher", std::to_string(teacher_accuracy));
  EXPECT_GT(mean, 2 * std::sqrt(variance))
      << "teacher " << teacher_accuracy << ", alone " << alone << ", distilled " << distilled;
  EXPECT_GT(mean, 0.03);
}

double median(std::vector<std::int64_t> values) {
  std::sort(values.begin(), values.end());
  return static_cast<double>(values[values.size() / 2]);
}

TEST(Convergence, extraction_reaches_parity_in_fewer_steps_than_one_shot) {
  if (kSlowBuild) GTEST_SKIP() << "minutes in a sanitizer build";
  ParitySettings s;
  s.support = 4;
  s.teacher_width = 256;
  s.teacher_steps = 5000;
  s.cap = 12000;
  s.stage_steps = 500;
  s.evaluation_samples = 2048;
  const ParityTeacher teacher = train_parity_teacher(s, 1);
  EXPECT_GE(teacher.accuracy, 0.99);
  EXPECT_GT(teacher.checkpoint_step, 0);
  EXPECT_LT(teacher.checkpoint_step, teacher.steps_to_target);
  const DegreeOneOptions probe{.samples = 16384, .projections = 128};
  const double untrained = probe_parity_teacher(s, *teacher.untrained, probe).ratio,
               trained = probe_parity_teacher(s, *teacher.trained, probe).ratio;
  EXPECT_GT(untrained, 0.75);
  EXPECT_LT(untrained, 1.3);
  EXPECT_GT(trained, 2);
  const ParityArm arms[] = {ParityArm::kOneShot, ParityArm::kExtractionPost,
                            ParityArm::kExtractionHead};
  constexpr std::int64_t kSeeds = 3;
  std::vector<ParityRun> runs(3 * kSeeds);
  parallel_for(3 * kSeeds, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      runs[static_cast<std::size_t>(i)] = run_parity_student(
          s, arms[i / kSeeds], teacher, static_cast<std::uint64_t>(i % kSeeds + 1));
  });
  std::vector<std::vector<std::int64_t>> steps(3);
  for (std::size_t i = 0; i < runs.size(); ++i) steps[i / kSeeds].push_back(runs[i].steps);
  EXPECT_LT(median(steps[1]), median(steps[0]) / 3) << median(steps[1]) << " " << median(steps[0]);
  EXPECT_LT(median(steps[2]), median(steps[0]) / 3) << median(steps[2]) << " " << median(steps[0]);
}

TEST(Convergence, parallel_parity_runs_are_the_same_as_one_after_the_other) {
  ParitySettings s;
  s.bits = 12;
  s.support = 2;
  s.teacher_width = 64;
  s.teacher_steps = 300;
  s.cap = 300;
  s.stage_steps = 50;
  s.evaluation_samples = 256;
  s.evaluate_steps = 50;
  s.target = 1.1;  // never: all steps are run
  const ParityTeacher teacher = train_parity_teacher(s, 1);
  std::vector<ParityRun> together(4);
  const auto run = [&](std::int64_t i) {
    return run_parity_student(s, i % 2 ? ParityArm::kExtractionHead : ParityArm::kProgressive,
                              teacher, static_cast<std::uint64_t>(i / 2));
  };
  parallel_for(4, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) together[static_cast<std::size_t>(i)] = run(i);
  });
  for (std::int64_t i = 0; i < 4; ++i) {
    const ParityRun alone = run(i);
    EXPECT_EQ(alone.accuracies, together[static_cast<std::size_t>(i)].accuracies);
    EXPECT_EQ(alone.steps, s.cap);
    EXPECT_FALSE(alone.reached);
  }
}

}  // namespace
}  // namespace retort::test
