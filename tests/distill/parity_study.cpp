#include "tests/distill/parity_study.h"

#include <numeric>

#include "engine/autograd/autograd.h"
#include "nn/data/parity.h"
#include "nn/models/mlp.h"
#include "tests/distill/metrics/evaluation_meter.h"

namespace retort::test {
namespace {

using namespace distill;

std::shared_ptr<nn::Mlp> make_network(const ParitySettings& s, std::int64_t width,
                                      std::uint64_t seed) {
  auto model = std::make_shared<nn::Mlp>(s.bits, std::vector<std::int64_t>{width}, 2, true);
  model->initialize(seed);
  return model;
}

// A teacher of the same weights as `model` has now.
std::shared_ptr<const Teacher> frozen_copy(const ParitySettings& s, const nn::Module& model,
                                           const std::string& name) {
  auto copy = make_network(s, s.teacher_width, 0);
  const auto from = model.named_parameters(), to = copy->named_parameters();
  for (std::size_t i = 0; i < to.size(); ++i)
    to[i].second.detach().copy_from(from[i].second.detach());
  return std::make_shared<Teacher>(std::move(copy), name);
}

// Samples of one stream: training streams by seed, one held-out stream for all.
class Samples {
 public:
  Samples(const ParitySettings& s, std::uint64_t seed, bool held_out)
      : data_(std::make_shared<nn::ParityDataset>(
            nn::ParityOptions{.n = s.bits, .k = s.support, .held_out = held_out})),
        source_(data_->source({.seed = seed})) {}
  nn::Batch rows(std::int64_t first, std::int64_t count) {
    indices_.resize(static_cast<std::size_t>(count));
    std::iota(indices_.begin(), indices_.end(), first);
    return source_->make(indices_);
  }
  const nn::ParityDataset& data() const { return *data_; }

 private:
  std::shared_ptr<const nn::ParityDataset> data_;
  std::shared_ptr<const nn::Source> source_;
  std::vector<std::int64_t> indices_;
};

// Streams that must not meet: teachers and students of equal seed see different samples.
constexpr std::uint64_t kTeacherStream = 0x7EAC'0000'0000'0000u,
                        kStudentStream = 0x57D0'0000'0000'0000u,
                        kCalibration = 0xCA11'0000'0000'0000u;

double accuracy_on(nn::Model& model, const nn::Batch& batch) {
  const NoGrad no_grad;
  return accuracy_of(model.forward(batch.inputs[0]).logits, batch.targets);
}

OptimizerFactory sgd(const ParitySettings& s) {
  return [rate = s.learning_rate](const nn::TrainedModules& modules) {
    nn::SgdConfig config;
    config.learning_rate = rate;
    return std::make_unique<nn::Sgd>(modules, config);
  };
}

std::vector<Stage> stages_of(const ParitySettings& s, ParityArm arm, std::uint64_t seed) {
  ExtractionOptions extraction;
  extraction.width = s.head_width;
  extraction.until.steps = s.stage_steps;
  extraction.seed = seed;
  switch (arm) {
    case ParityArm::kLabels:
    case ParityArm::kOneShot: return one_shot_stages(0);
    case ParityArm::kProgressive: {
      const ProgressivePart part{1, s.stage_steps};
      return progressive_stages({&part, 1}, 0);
    }
    case ParityArm::kExtractionPost: extraction.variant = ProjectionVariant::kPost; break;
    case ParityArm::kExtractionPre: extraction.variant = ProjectionVariant::kPre; break;
    case ParityArm::kExtractionHead: extraction.variant = ProjectionVariant::kHead; break;
    case ParityArm::kUntrainedControl: extraction.projection_teacher = 2; break;
  }
  return extraction_stages(1, extraction);
}

}  // namespace

const char* name_of(ParityArm arm) {
  switch (arm) {
    case ParityArm::kLabels: return "labels";
    case ParityArm::kOneShot: return "one_shot";
    case ParityArm::kProgressive: return "progressive";
    case ParityArm::kExtractionPost: return "extraction_post";
    case ParityArm::kExtractionPre: return "extraction_pre";
    case ParityArm::kExtractionHead: return "extraction_head";
    case ParityArm::kUntrainedControl: return "untrained_control";
  }
  return "?";
}

ParityTeacher train_parity_teacher(const ParitySettings& s, std::uint64_t seed) {
  ParityTeacher result;
  const auto model = make_network(s, s.teacher_width, kTeacherStream + seed);
  result.untrained = frozen_copy(s, *model, "untrained");
  result.steps_to_target = s.teacher_steps;
  Samples training(s, kTeacherStream + seed, false), held_out(s, 0, true);
  const nn::Batch evaluation = held_out.rows(0, s.evaluation_samples);
  StagedDistillation run(*model, {}, one_shot_stages(), sgd(s));
  const StepSettings labels_only{.lambda = {0}};
  bool reached = false;
  for (std::int64_t step = 0; step < s.teacher_steps; ++step) {
    const nn::Batch batch = training.rows(step * s.batch, s.batch);
    run.step(batch, labels_only, s.learning_rate);
    if ((step + 1) % s.evaluate_steps != 0 && step + 1 != s.teacher_steps) continue;
    result.accuracy = accuracy_on(*model, evaluation);
    if (!result.checkpoint && result.accuracy > s.checkpoint_above) {
      result.checkpoint = frozen_copy(s, *model, "checkpoint");
      result.checkpoint_step = step + 1;
      result.checkpoint_accuracy = result.accuracy;
    }
    if (!reached && result.accuracy >= s.target) {
      reached = true;
      result.steps_to_target = step + 1;
    }
  }
  result.trained = frozen_copy(s, *model, "teacher");
  if (!result.checkpoint) result.checkpoint = result.trained;
  return result;
}

ParityRun run_parity_student(const ParitySettings& s, ParityArm arm, const ParityTeacher& teacher,
                             std::uint64_t student_seed) {
  RETORT_CHECK(teacher.trained && teacher.checkpoint && teacher.untrained,
               "[parity] expected a trained teacher with its checkpoints");
  const auto student = make_network(s, s.student_width, kStudentStream + student_seed);
  Samples training(s, kStudentStream + student_seed, false), held_out(s, 0, true),
      calibration(s, kCalibration + student_seed, false);
  const nn::Batch evaluation = held_out.rows(0, s.evaluation_samples);
  StagedDistillation run(*student, {{teacher.trained}, {teacher.checkpoint}, {teacher.untrained}},
                         stages_of(s, arm, student_seed), sgd(s),
                         [&] { return calibration.rows(0, s.calibration_samples); });
  const StepSettings settings{.lambda = {arm == ParityArm::kLabels ? 0.0f : 1.0f}};
  ParityRun result;
  result.steps = s.cap;
  for (std::int64_t step = 0; step < s.cap; ++step) {
    const nn::Batch batch = training.rows(step * s.batch, s.batch);
    run.step(batch, settings, s.learning_rate);
    if ((step + 1) % s.evaluate_steps != 0) continue;
    result.accuracy = accuracy_on(*student, evaluation);
    result.accuracies.emplace_back(step + 1, result.accuracy);
    if (result.accuracy < s.target) continue;
    result.reached = true;
    result.steps = step + 1;
    break;
  }
  return result;
}

DegreeOneResult probe_parity_teacher(const ParitySettings& s, const Teacher& teacher,
                                     const DegreeOneOptions& options) {
  Samples samples(s, 1, true);
  return degree_one_probe(
      teacher,
      [&](std::int64_t first, std::int64_t count) {
        return samples.rows(first, count).inputs[0].values;
      },
      samples.data().support(), options);
}

}  // namespace retort::test
