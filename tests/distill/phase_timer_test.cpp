#include "distill/phase_timer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "distill/schedules/staged.h"
#include "tests/distill/models.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using namespace distill;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

TEST(PhaseTimer, gives_time_to_the_phase_that_ended_and_none_to_pauses) {
  const auto wait = [] { std::this_thread::sleep_for(std::chrono::milliseconds(5)); };
  PhaseTimer timer(Device::kCpu);
  wait();
  timer.start();  // what came before is nobody's
  wait();
  timer.mark(Phase::kStudent);
  timer.mark(Phase::kLoss);
  wait();
  timer.mark(Phase::kStudent);
  EXPECT_GE(timer.seconds(Phase::kStudent), 0.010);
  EXPECT_LT(timer.seconds(Phase::kLoss), 0.005);
  EXPECT_EQ(timer.seconds(Phase::kTeacher), 0);
  timer.clear();
  EXPECT_EQ(timer.seconds(Phase::kStudent), 0);
}

TEST(PhaseTimer, is_off_where_launches_return_before_the_work_is_done) {
  PhaseTimer timer(Device::kCuda);
  timer.start();
  timer.mark(Phase::kLoss);
  EXPECT_FALSE(timer.on());
  EXPECT_EQ(timer.seconds(Phase::kLoss), 0);
}

// Distillation and projection steps mark every phase, and together they are the whole step.
TEST(PhaseTimer, a_step_is_the_sum_of_its_phases) {
  for (const bool projection : {false, true}) {
    TinyMlp student(60, {80, 70}, 3, 1);
    const auto teacher = std::make_shared<Teacher>(
        std::make_shared<TinyMlp>(60, std::vector<std::int64_t>{200, 190}, 3, 2));
    const nn::Batch batch(randn({512, 60}, 1), randint({512}, 2, 3));
    StagedDistillation run(
        student, {{teacher}}, projection ? extraction_stages(2, {.width = 5}) : one_shot_stages(),
        [](const nn::TrainedModules& modules) {
          return std::make_unique<nn::Sgd>(modules, nn::SgdConfig{});
        },
        [&] { return batch; });
    PhaseTimer timer(Device::kCpu);
    StepSettings settings{.lambda = {0.5f}, .timer = &timer};
    run.step(batch, settings, 0.1);  // begins the stage
    timer.clear();
    const double start = now();
    timer.start();
    for (int i = 0; i < 20; ++i) run.step(batch, settings, 0.1);
    const double whole = now() - start;
    double sum = 0;
    for (const Phase phase :
         {Phase::kTeacher, Phase::kStudent, Phase::kLoss, Phase::kBackward, Phase::kUpdate}) {
      EXPECT_GT(timer.seconds(phase), 0) << name_of(phase) << projection;
      sum += timer.seconds(phase);
    }
    EXPECT_LE(sum, whole);
    EXPECT_GT(sum, 0.9 * whole);
    EXPECT_EQ(timer.seconds(Phase::kData), 0);  // the loop's to mark
  }
  // Without a teacher no time is the teacher's.
  TinyMlp alone(6, {8}, 3, 1);
  PhaseTimer timer(Device::kCpu);
  distill_step(nullptr, alone, {randn({4, 6}, 1), randint({4}, 2, 3)},
               {.lambda = {0}, .timer = &timer}, [] {});
  EXPECT_EQ(timer.seconds(Phase::kTeacher), 0);
  EXPECT_GT(timer.seconds(Phase::kStudent), 0);
}

}  // namespace
}  // namespace retort::test
