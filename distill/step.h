// One optimisation step of a student, in the order of the flow.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "distill/losses/distillation_loss.h"
#include "distill/phase_timer.h"
#include "distill/teacher/teacher.h"
#include "kernels/step_statistics/step_statistics.h"
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
  std::int64_t samples = 0;  // those that count
  bool has_teacher = false;
  std::vector<float> ce, kd;  // (B) each
  std::vector<std::uint8_t> correct;
};

/// What a step leaves behind, still on the device: nothing is read back until host() is called, so
/// call that once per log interval.
struct StepReport {
  std::vector<DistillationLossResult> parts;  // one per micro-batch, detached
  std::vector<Tensor> losses;                 // scalars; their sum is the loss of the step
  std::vector<Tensor> targets;                // i32, of each part; undefined: every row counts
  std::int64_t samples = 0;                   // rows of the batch
  bool has_teacher = false;

  double loss() const;          // waits for the device
  StepStatistics host() const;  // waits for the device
};

/// Clips, steps the optimizer and clears the gradients.
using Update = std::function<void()>;

/// Teacher logits (no gradient), student forward, loss, backward, update.
///
///   L = (1/Z) sum_i [(1 - lambda_i) CE_i + lambda_i tau_i^2 KL_i]
///
/// over the Z rows whose target is not -100; such a row counts nowhere. With micro_batch the
/// gradient is accumulated over consecutive slices of the batch. The divisor is the batch's Z for
/// each of them, so any split gives the same loss and gradient (batch-norm statistics are those of
/// a slice, as everywhere). A teacher is not asked if there is none (null) or every lambda is 0.
///
/// Errors    kUsage for a field of the batch that does not fit B, lambda or temperature of another
///           length than 1 or B, or a lambda that is not 0 without a teacher; what the loss and the
///           models throw.
StepReport distill_step(const Teacher* teacher, nn::Model& student, const StepBatch& batch,
                        const StepSettings& settings, const Update& update);

/// Error(kUsage) naming the field unless all that is given has the rows of `inputs` and targets are
/// i32.
void check_batch(const StepBatch& batch);

/// Whether the settings ask the teacher: some lambda is not 0.
/// Errors    kUsage for settings that do not fit `rows` samples, or ask a teacher that is not
/// there.
bool asks_teacher(const StepSettings& settings, std::int64_t rows, bool has_teacher);

/// Student forward, loss and backward over rows of a batch: what every step has in common. The
/// result is detached. lambda, temperature and normalizer are device tensors as in
/// DistillationLossArgs; undefined teacher logits: labels alone.
DistillationLossResult forward_backward(nn::Model& student, const Tensor& inputs,
                                        DistillationLossArgs loss, PhaseTimer* timer = nullptr);

/// The numbers of one step.
struct StepNumbers {
  double loss = 0;
  double ce = 0, kd = 0;  // sums over its samples in nats; kd includes tau^2
  double correct = 0, teacher_correct = 0;
  std::int64_t samples = 0;  // those that count
};

/// What a row of StepMeter holds, as doubles.
enum StepNumber : int {
  kStepLoss,            // the step's loss
  kStepCe,              // sum over its samples, nats
  kStepKd,              // sum over its samples, nats, with tau^2
  kStepCorrect,         // how many samples the student got right
  kStepTeacherCorrect,  // and the teacher
  kStepSamples,         // how many samples count
  kStepNumbers
};

/// The columns of one part of a step. Targets undefined: all of its rows count. A result without
/// statistics: only the loss and the rows.
kernels::StepStatisticsArgs step_columns(const Tensor& loss, const DistillationLossResult* result,
                                         const Tensor& targets, std::int64_t rows);

/// The numbers of the steps between two log lines. They gather in rows on the device, summed there
/// in a fixed order (kernels/step_statistics), and come to the host in one copy: when asked for, or
/// when `capacity` rows are full.
class StepMeter {
 public:
  explicit StepMeter(std::int64_t capacity = 1024);

  void add(const StepReport& report);  // one launch per micro-batch
  bool empty() const { return size() == 0; }
  std::int64_t size() const { return static_cast<std::int64_t>(read_.size()) + on_device_; }
  /// The steps since the last call, in their order, and forgets them.
  std::vector<StepNumbers> take();
  /// Means over all samples (loss: over steps) since the last call, and forgets them. The
  /// per-sample vectors stay empty.
  StepStatistics summary();

  /// For a step that writes its row itself: the row to write. rows() is f64 (capacity,
  /// kStepNumbers) on that device, and stays where it is.
  std::int64_t begin_row(Device device, bool has_teacher);
  const Tensor& rows() const { return rows_; }

 private:
  void read();

  std::int64_t capacity_, on_device_ = 0;
  Tensor rows_;
  std::vector<StepNumbers> read_;
  bool has_teacher_ = false;
};

}  // namespace retort::distill
