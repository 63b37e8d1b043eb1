// One model on its way through a recipe's steps: batches from the loader, stages from distill,
// order and lambda from curriculum. The only code that sees both distill and curriculum. It writes
// nothing: train_loop.h adds files and log lines, plan.h measures a few steps.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "curriculum/schedules/reliance.h"
#include "distill/schedules/staged.h"
#include "nn/checkpoint/checkpoint.h"
#include "nn/data/loader.h"
#include "nn/optim/schedule.h"
#include "tools/kdtrain/experiment.h"

namespace retort::tools {

/// What one job trains.
struct TrainingPlan {
  std::string arm;
  std::int64_t seed = 0;  // as logged and as the folder is named
  const Settings* settings = nullptr;
  std::string section;    // "train", or "teacher.train"
  std::uint64_t key = 0;  // of everything random
  std::shared_ptr<nn::Model> model;
  std::string model_section;  // "student" or "teacher": for the metadata of the weights
  std::shared_ptr<const nn::Dataset> data;
  nn::Normalize normalize;
  const TeacherSet* teacher = nullptr;                      // null: trains on labels alone
  std::vector<distill::Stage> stages;                       // never empty
  std::vector<std::shared_ptr<distill::Teacher>> teachers;  // by Stage::teacher
  std::shared_ptr<const Curriculum> curriculum;             // order = "curriculum" only
  std::vector<double> snapshot_accuracies;                  // teachers: keep a copy when exceeded
  std::vector<std::string> notes;                           // for the report
  /// More metrics of the final line; asked once, after the last step.
  std::function<std::map<std::string, double>(const std::shared_ptr<nn::Model>&)> final_metrics;
};

/// What a step says at once; its numbers gather in the trainer's meter.
struct StepOutcome {
  std::int64_t samples = 0;
  double lambda = 0;   // mean over the batch; 1 in a projection stage
  double clamped = 0;  // share of its lambdas that the clamp changed
};

class Trainer {
 public:
  /// Moves the model. The plan must outlive the trainer.
  Trainer(const TrainingPlan& plan, const ExperimentData& data, Device device);

  /// On CUDA with train.graph a captured step, where it can be one, that makes its batch itself.
  StepOutcome step();
  distill::StepMeter& meter() { return meter_; }

  std::int64_t steps_done() const { return staged_->steps(); }
  std::int64_t steps_planned() const { return planned_; }
  std::int64_t steps_per_epoch() const { return epoch_steps_; }
  double learning_rate() const { return learning_rate_; }  // of the last step
  double temperature() const { return static_cast<double>(settings_.temperature[0]); }
  /// Name of the stage that the last step belonged to.
  const std::string& stage_name() const { return stage_name_; }
  const std::optional<curriculum::Reliance>& reliance() const { return reliance_; }
  DType dtype() const { return dtype_; }
  distill::PhaseTimer& timer() { return timer_; }

  /// metadata: of the weights.
  nn::CheckpointContents checkpoint(Json state, std::map<std::string, std::string> metadata) const;
  void restore(const nn::FoundCheckpoint& checkpoint);

 private:
  void make_loader(const ExperimentData& data);
  Tensor calibration(bool parity) const;
  nn::BatchOptions batch_options() const;
  std::vector<float> lambda_of(const std::vector<std::int64_t>& samples) const;

  const TrainingPlan& plan_;
  const Settings& s_;
  Device device_;
  std::int64_t batch_, epoch_steps_ = 1, planned_ = 0;
  DType dtype_, teacher_dtype_;
  nn::Schedule schedule_;
  std::optional<curriculum::Reliance> reliance_;
  nn::BatchPlan batches_;  // which samples a step takes
  std::unique_ptr<nn::Loader> loader_;
  distill::StepMeter meter_;
  std::unique_ptr<nn::ImageFeed> feed_;  // null: batches come from the loader
  std::unique_ptr<distill::StagedDistillation> staged_;
  distill::StepSettings settings_;
  distill::PhaseTimer timer_;
  double learning_rate_ = 0;
  std::string stage_name_;
};

}  // namespace retort::tools
