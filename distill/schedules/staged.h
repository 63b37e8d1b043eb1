// Runs a list of stages: the one driver of one-shot, progressive and extraction.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "distill/graphed_step.h"
#include "distill/schedules/frozen_rest.h"
#include "distill/schedules/stage.h"
#include "distill/step.h"
#include "nn/optim/optimizer.h"

namespace retort::distill {

/// Makes the optimizer of a stage over the student (prefix "") and what its terms train beside it
/// (prefix "<term>_head.").
using OptimizerFactory =
    std::function<std::unique_ptr<nn::Optimizer>(const nn::TrainedModules& modules)>;

/// A student on its way through the stages. Call step() once per batch; stages change by
/// themselves. A stage with fresh_optimizer, and any stage that trains other parameters than the
/// one before, starts with new optimizer state.
///
/// A stage whose terms read only some hidden layers trains and computes no more than those: the
/// rest is frozen (frozen_rest.h), and the teacher stops at its layer.
///
/// Checkpoints: state() holds everything but the student's own weights. A run that saves both after
/// any step and loads them goes on with the same bytes.
class StagedDistillation {
 public:
  /// calibration() gives samples as they are stored, about 2,000, and is called at the start of a
  /// stage with a term that asks for them; it may be empty if there is none. Teachers may be absent
  /// if no stage needs one (lambda 0). All are kept alive by this object; the student by the
  /// caller.
  StagedDistillation(nn::Model& student, std::vector<RunTeacher> teachers,
                     std::vector<Stage> stages, OptimizerFactory make_optimizer,
                     std::function<nn::Batch()> calibration = {});

  /// From now on the numbers of every step go to the meter, and steps run as captured graphs where
  /// they can: on CUDA, in stages that end by a number of steps. The reports of such steps are
  /// empty but for `samples`.
  void use_meter(StepMeter& meter, const GraphOptions& options = {});

  /// One optimisation step of the stage that is due. A stage may override lambda and temperature.
  StepReport step(const nn::Batch& batch, const StepSettings& settings, double learning_rate);
  /// One step on a batch of a feed, and with overlap the batch of the next call. Wants use_meter().
  StepReport step(const nn::DeviceFeed& feed, const nn::FeedBatch& batch,
                  const StepSettings& settings, double learning_rate,
                  const nn::FeedBatch* next = nullptr);
  /// Of the last step; null before the first, and in stages that are not captured.
  const GraphedStep* graphed() const { return graphed_.get(); }

  /// Of the step that comes next.
  std::size_t stage_index() const;
  const Stage& stage() const { return stages_[stage_index()]; }
  std::int64_t step_in_stage() const { return over() ? 0 : step_; }
  std::int64_t steps() const { return total_; }  // taken so far, all stages
  const std::vector<Stage>& stages() const { return stages_; }
  /// Steps at which stages began so far: {0, ...}.
  const std::vector<std::int64_t>& starts() const { return starts_; }
  /// Of the stage of the last step; null before the first.
  nn::Optimizer* optimizer() const { return optimizer_.get(); }

  NamedTensors state() const;
  /// Into an object made with the same arguments, after the student's weights were loaded.
  void load_state(const NamedTensors& state);

 private:
  bool over() const;  // the stage of the last step has ended
  const Stage& enter_due_stage();
  void begin_stage(bool resuming);
  void begin_terms(const Stage& stage, bool resuming);
  std::vector<RunTeacher> teachers_of(const Stage& stage) const;
  nn::TrainedModules trained_with(const Stage& stage);
  void make_graphed(const Stage& stage);
  StepReport run(const nn::Batch& batch, const StepSettings& settings, double learning_rate);
  void count_step(const Stage& stage, const StepReport& report, const StepSettings& settings);
  void watch_plateau(const StepReport& report, const StepSettings& settings);
  void load_terms(const NamedTensors& state);

  nn::Model& student_;
  std::vector<RunTeacher> teachers_;
  std::vector<Stage> stages_;
  OptimizerFactory make_optimizer_;
  std::function<nn::Batch()> calibration_;

  std::size_t index_ = 0;
  std::int64_t step_ = 0, total_ = 0;
  bool begun_ = false, plateau_ = false;
  std::vector<std::int64_t> starts_;
  std::unique_ptr<FrozenRest> frozen_;  // of a partial stage
  std::unique_ptr<nn::Optimizer> optimizer_;
  bool trains_more_ = false;    // the optimizer has parameters of terms
  std::vector<Tensor> window_;  // losses of the running window, on the device
  double last_window_ = -1;     // mean loss of the window before; -1: none yet
  StepMeter* meter_ = nullptr;
  GraphOptions graph_options_;
  std::unique_ptr<GraphedStep> graphed_;  // after optimizer_: it goes first
};

}  // namespace retort::distill
