// One optimisation step of a student, in the order of the flow.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "distill/losses/distillation_loss.h"
#include "distill/phase_timer.h"
#include "distill/teacher/teacher.h"
#include "nn/module.h"

namespace retort::distill {

/// A batch as the step takes it.
///
/// Shapes    inputs, teacher_inputs (B, ...); targets i32 (B); samples, augment B or empty
struct StepBatch {
  Tensor inputs;          // for the student
  Tensor teacher_inputs;  // for the teacher; undefined: inputs
  Tensor targets;
  std::span<const std::int64_t> samples = {};   // named for the teacher's cache
  std::span<const std::uint32_t> augment = {};  // empty: 0 for all
};

/// What may change from step to step.
struct StepSettings {
  std::vector<float> lambda = {0.5f};       // the teacher's share: one, or one per sample (B)
  std::vector<float> temperature = {1.0f};  // tau: one, or one per sample
  Divergence divergence = Divergence::kForwardKl;
  std::int64_t micro_batch = 0;  // rows per forward pass; 0: the whole batch
  PhaseTimer* timer = nullptr;   // marked after each phase; null: nobody asks
};

/// Host copy of a step's numbers, per sample in the order of the batch.
struct StepStatistics {
  double loss = 0;                  // total
  double loss_ce = 0, loss_kd = 0;  // means per sample in nats; kd includes tau^2; 0 if left out
  double accuracy = 0, teacher_accuracy = 0;
  std::int64_t samples = 0;
  bool has_teacher = false;
  std::vector<float> ce, kd;  // (B) each
  std::vector<std::uint8_t> correct;
};

/// What a step leaves behind, still on the device: nothing is read back until host() is called, so
/// call that once per log interval.
struct StepReport {
  std::vector<DistillationLossResult> parts;  // one per micro-batch, detached
  std::vector<Tensor> losses;                 // scalars; their sum is the loss of the step
  std::int64_t samples = 0;
  bool has_teacher = false;

  double loss() const;          // waits for the device
  StepStatistics host() const;  // waits for the device
};

/// Clips, steps the optimizer and clears the gradients.
using Update = std::function<void()>;

/// Teacher logits (no gradient), student forward, loss, backward, update.
///
///   L = (1/B) sum_i [(1 - lambda_i) CE_i + lambda_i tau_i^2 KL_i]
///
/// With micro_batch the gradient is accumulated over consecutive slices of the batch. The divisor
/// is B for each of them, so any split gives the same loss and gradient (batch-norm statistics are
/// those of a slice, as everywhere). A teacher is not asked if there is none (null) or every lambda
/// is 0.
///
/// Errors    kUsage for lambda or temperature of another length than 1 or B, or a lambda that is
///           not 0 without a teacher; what the loss and the models throw.
StepReport distill_step(const Teacher* teacher, nn::Model& student, const StepBatch& batch,
                        const StepSettings& settings, const Update& update);

/// Sums of reports between two log lines; reads the device once, in summary().
class StepMeter {
 public:
  void add(StepReport report) { reports_.push_back(std::move(report)); }
  bool empty() const { return reports_.empty(); }
  /// Means over all samples (loss: over steps) since the last call, and forgets them. The
  /// per-sample vectors are those of all steps, one after the other.
  StepStatistics summary();

 private:
  std::vector<StepReport> reports_;
};

}  // namespace retort::distill
