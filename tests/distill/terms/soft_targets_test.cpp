#include "distill/terms/soft_targets.h"

#include <gtest/gtest.h>

#include "distill/step.h"
#include "distill/teacher/logit_cache.h"
#include "nn/models/mlp.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using namespace distill;

// A student that counts what it is asked for.
class Counting : public nn::Mlp {
 public:
  using nn::Mlp::Mlp;
  nn::Outputs forward(const nn::Inputs& inputs, const nn::Want& want = {}) override {
    nn::Outputs out = nn::Mlp::forward(inputs, want);
    whole += out.logits.defined();
    parts += out.head.defined();
    return out;
  }
  int whole = 0, parts = 0;
};

struct OneStep {
  explicit OneStep(Device device, const Terms& terms, const StepSettings& settings,
                   bool scalar_output = false)
      : student(6, {8}, scalar_output ? 2 : 5, scalar_output),
        teacher_model(
            std::make_shared<Counting>(6, std::vector<std::int64_t>{12}, scalar_output ? 2 : 5)) {
    student.initialize(1);
    teacher_model->initialize(2);
    student.to(device);
    teacher_model->to(device);
    const Teacher teacher(teacher_model);
    const std::int64_t classes = student.classes();
    Tensor targets = randint({11}, 3, static_cast<std::uint32_t>(classes)).to(device);
    targets.slice(4, 5).fill(-100);
    const nn::Batch batch{randn({11, 6}, 4).to(device), targets};
    report = distill_step(
        &teacher, student, batch, settings,
        [this] {
          for (const auto& [name, p] : student.named_parameters()) {
            gradients.push_back(p.grad().clone());
            p.zero_grad();
          }
        },
        terms);
  }
  Counting student;
  std::shared_ptr<Counting> teacher_model;
  std::vector<Tensor> gradients;
  StepReport report;
};

Terms in_parts(bool recompute = false) {
  return soft_targets({.logits_memory = 100, .recompute = recompute});  // two or three rows
}

TEST(SoftTargets, logits_in_parts_give_the_step_of_the_whole) {
  for (const Device device : devices())
    for (const bool recompute : {false, true})
      for (const std::int64_t micro : {0, 4}) {
        const StepSettings settings{.lambda = {0.3f}, .temperature = {2.0f}, .micro_batch = micro};
        const OneStep whole(device, soft_targets(), settings),
            parts(device, in_parts(recompute), settings);
        EXPECT_GT(whole.student.whole, 0);
        EXPECT_EQ(whole.student.parts, 0);
        EXPECT_EQ(parts.student.whole, 0);
        EXPECT_GT(parts.student.parts, 0);
        EXPECT_EQ(parts.teacher_model->whole, 0);
        EXPECT_TRUE(close(parts.report.loss(), whole.report.loss(), 1e-5, 1e-6));
        for (const char* column : {"loss_ce", "loss_kd", "accuracy", "teacher_accuracy"}) {
          const std::vector<float> a = parts.report.column(column), b = whole.report.column(column);
          ASSERT_EQ(a.size(), 11u);
          for (std::size_t i = 0; i < a.size(); ++i)
            EXPECT_TRUE(close(a[i], b[i], 1e-5, 1e-6)) << column << " " << i;
        }
        for (std::size_t i = 0; i < whole.gradients.size(); ++i)
          EXPECT_TRUE(all_close(parts.gradients[i], whole.gradients[i])) << i;
      }
}

TEST(SoftTargets, labels_alone_need_no_teacher_in_parts_either) {
  for (const Device device : devices()) {
    const StepSettings settings{.lambda = {0.0f}};
    const OneStep whole(device, soft_targets(), settings), parts(device, in_parts(), settings);
    EXPECT_EQ(parts.teacher_model->parts + parts.teacher_model->whole, 0);
    EXPECT_TRUE(close(parts.report.loss(), whole.report.loss(), 1e-5, 1e-6));
    EXPECT_TRUE(all_close(parts.gradients[2], whole.gradients[2]));
  }
}

// A last layer that is not linear alone keeps its logits; the teacher's are multiplied out.
TEST(SoftTargets, a_student_without_a_head_gives_logits) {
  for (const Device device : devices()) {
    const StepSettings settings{.lambda = {0.3f}, .temperature = {2.0f}};
    const OneStep whole(device, soft_targets(), settings, true),
        parts(device, in_parts(), settings, true);
    EXPECT_EQ(parts.student.parts, 0);
    EXPECT_GT(parts.teacher_model->parts, 0);
    EXPECT_TRUE(close(parts.report.loss(), whole.report.loss(), 1e-5, 1e-6));
    EXPECT_TRUE(all_close(parts.gradients[0], whole.gradients[0]));
  }
}

TEST(SoftTargets, a_teachers_cached_logits_are_taken_as_they_are) {
  auto model = std::make_shared<Counting>(6, std::vector<std::int64_t>{12}, 5);
  model->initialize(2);
  Teacher teacher(model);
  teacher.use_cache(std::make_shared<LogitCache>(
      LogitCacheKey{.dataset_hash = "d", .teacher_hash = teacher.hash(), .width = 5},
      std::size_t{1} << 20));
  nn::Batch batch{randn({3, 6}, 4), randint({3}, 3, 5)};
  batch.sample = {0, 1, 2};
  const nn::Want want{.head = true};
  const nn::Outputs first = answer_of(teacher, batch, 0, want),
                    again = answer_of(teacher, batch, 0, want);
  EXPECT_TRUE(first.logits.defined() && !first.head.defined());
  EXPECT_EQ(model->whole, 1);  // the second came from the cache
  EXPECT_TRUE(same_bytes(first.logits, again.logits));
}

TEST(SoftTargets, keys_differ_where_a_captured_step_would) {
  EXPECT_NE(SoftTargets({.logits_memory = 1}).key(), SoftTargets().key());
  EXPECT_NE(SoftTargets({.logits_memory = 1, .recompute = true}).key(),
            SoftTargets({.logits_memory = 1}).key());
}

}  // namespace
}  // namespace retort::test
