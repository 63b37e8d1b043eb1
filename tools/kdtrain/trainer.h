// One model on its way through a recipe's steps: batches from the loader, stages from distill,
// order and lambda from curriculum. It writes nothing: train_loop.h adds files and log lines, plan.h
// measures a few steps.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "curriculum/sampling/sampler.h"
#include "curriculum/schedules/reliance.h"
#include "distill/metrics/measure.h"
#include "distill/schedules/staged.h"
#include "engine/distributed/communicator.h"
#include "nn/checkpoint/checkpoint.h"
#include "nn/data/device_feed.h"
#include "nn/optim/schedule.h"
#include "tools/kdtrain/curricula.h"

namespace retort::tools {

/// A teacher and what was found out about it once.
struct TeacherSet {
  std::string model = "teacher";  // or the name of a [[model]]
  std::int64_t seed = 0;
  std::shared_ptr<distill::Teacher> final, untrained;
  std::map<std::string, std::shared_ptr<distill::Teacher>> snapshots;  // by SnapshotRule::name()
  nn::Reading reading;
  // Somebody asks for a text's answers more than once: in another epoch, or in another arm that
  // has the same masks.
  bool asked_again = true;
  std::vector<std::string> problems;  // of `final`, which teacher.allow_untrained accepted
  std::vector<std::shared_ptr<distill::TeacherAnswers>> answers;  // of `final`, by evaluation set
  std::vector<distill::Metrics> evaluation;                       // by evaluation set
  curriculum::SampleStatistics statistics;  // of the student's training samples
};

/// A moment of a teacher's training whose weights are kept: the first evaluation whose accuracy
/// exceeds one, or a step.
struct SnapshotRule {
  double accuracy_above = -1;  // unless below 0
  std::int64_t step = 0;       // unless 0
  /// Of its file, without ".safetensors": "above_0.7", "step_500".
  std::string name() const;
  bool operator==(const SnapshotRule&) const = default;
};

/// What one job trains.
struct TrainingPlan {
  std::string arm;        // or the name of a model
  std::int64_t seed = 0;  // as logged and as the folder is named
  std::string task;       // "" where a recipe has none
  const Settings* settings = nullptr;
  std::string section;    // "train", or "teacher.train"
  std::uint64_t key = 0;  // of everything random
  std::shared_ptr<nn::Model> model;
  std::string model_section;  // "student" or "teacher": for the metadata of the weights
  std::shared_ptr<const nn::Dataset> data;
  nn::Reading reading;                                      // how the model reads it
  const TeacherSet* teacher = nullptr;                      // null: trains on labels alone
  std::vector<distill::Stage> stages;                       // never empty
  std::vector<std::shared_ptr<distill::Teacher>> teachers;  // by Stage::teachers
  std::shared_ptr<const NamedCurriculum> curriculum;        // order = "curriculum" only
  /// Makes the curriculum of the model as it stands before this step; null: the order stays.
  std::function<curriculum::Curriculum(nn::Model& model, std::int64_t step)> rescore;
  std::vector<SnapshotRule> snapshots;  // teachers: keep a copy at these moments
  std::vector<std::string> notes;       // for the report
  /// More metrics of the final line; asked once, after the last step.
  std::function<distill::Metrics(const std::shared_ptr<nn::Model>&)> final_metrics;
};

class Trainer {
 public:
  /// Moves the model. The plan must outlive the trainer. ranks: who shares each batch; null: nobody.
  /// With several, step(), checkpoint() and what the meter gives are collective: every rank knows
  /// which samples a step takes, and makes those of its own slices.
  Trainer(const TrainingPlan& plan, Device device, Communicator* ranks = nullptr);

  /// One step; its numbers gather in the meter. Returns the samples of its batch. On CUDA with
  /// train.graph a captured step, where it can be one, that makes its batch itself.
  std::int64_t step();
  /// Whether curriculum.rescore_epochs wants a new order before the next step: so many passes over
  /// the samples that are fed were done.
  bool rescoring_is_due() const;
  /// Makes it. step() does so itself; called before it, the time can be told apart.
  void rescore();
  distill::StepMeter& meter() { return meter_; }

  std::int64_t steps_done() const { return staged_->steps(); }
  std::int64_t steps_planned() const { return planned_; }
  std::int64_t steps_per_epoch() const { return epoch_steps_; }
  double learning_rate() const { return learning_rate_; }  // of the last step
  double temperature() const { return static_cast<double>(settings_.temperature[0]); }
  /// Name of the stage that the last step belonged to.
  const std::string& stage_name() const { return stage_name_; }
  /// The last step ended its stage: the next one belongs to another.
  bool stage_ended() const { return staged_->stage_index() != stage_of_step_; }
  const std::optional<curriculum::Reliance>& reliance() const { return reliance_; }
  distill::PhaseTimer& timer() { return timer_; }

  /// metadata: of the weights.
  nn::CheckpointContents checkpoint(Json state, std::map<std::string, std::string> metadata) const;
  void restore(const nn::FoundCheckpoint& checkpoint);

 private:
  void make_batches();
  void load(const nn::BatchPlan& plan);
  nn::Batch batch_at(std::int64_t step);
  void share_caches();
  distill::BatchShare share_of(const nn::Batch& own, std::int64_t samples) const;
  void feed_in(const curriculum::Curriculum& c);
  std::shared_ptr<const curriculum::Sampler> feed(std::vector<std::int64_t> order);
  // When the order that is fed from this step on is made; 0: at the start.
  std::int64_t rescored_at(std::int64_t step) const;
  nn::SourceOptions source_options() const;
  nn::Batch calibration() const;
  void set_reliance(const distill::Stage& stage, std::int64_t step,
                    std::span<const std::int64_t> samples);

  const TrainingPlan& plan_;
  const Settings& s_;
  Device device_;
  Communicator* ranks_;                       // null: one
  std::vector<distill::LogitCache*> caches_;  // of the teachers, where ranks share their rows
  std::int64_t slices_;
  std::int64_t batch_, epoch_steps_ = 1, planned_ = 0, cutoff_ = 0;
  nn::Schedule schedule_;
  std::optional<curriculum::Reliance> reliance_;
  curriculum::Curriculum rescored_;  // the newest order: a checkpoint keeps it
  std::int64_t rescore_steps_ = 0, made_at_ = 0;
  nn::BatchPlan batches_;  // which samples a step takes
  std::unique_ptr<nn::Loader> loader_;
  distill::StepMeter meter_;
  std::unique_ptr<nn::DeviceFeed> feed_;  // null: batches come from the loader
  std::unique_ptr<distill::StagedDistillation> staged_;
  distill::StepSettings settings_;
  distill::PhaseTimer timer_;
  double learning_rate_ = 0;
  std::string stage_name_;
  std::size_t stage_of_step_ = 0;
};

}  // namespace retort::tools
