// One optimisation step of a student, in the order of the flow.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "distill/phase_timer.h"
#include "distill/step_meter.h"
#include "distill/terms/soft_targets.h"
#include "nn/optim/batch_slices.h"

namespace retort::distill {

/// Where the samples at hand lie in a batch that several ranks share: they are samples
/// [first, last) of it, those of this rank's slices; there may be none (inputs of 0 samples).
struct BatchShare {
  std::int64_t samples = 0;  // of the whole batch
  std::int64_t first = 0, last = 0;
  std::int64_t counted = 0;  // Z: rows of the whole batch that the loss does not ignore
  /// Rows, and tokens (dim 0 of the inputs), of the whole batch; 0: one for each sample.
  std::int64_t rows = 0, values = 0;

  /// Of a whole batch with a row and a value for each sample, by its labels, which all ranks know.
  static BatchShare of(const nn::BatchSlices& slices, std::span<const std::int32_t> labels);
};

/// What may change from step to step.
struct StepSettings {
  std::vector<float> lambda = {0.5f};       // the teacher's share: one, or one per sample (B)
  std::vector<float> temperature = {1.0f};  // tau: one, or one per sample
  std::int64_t micro_batch = 0;             // samples per forward pass; 0: the whole slice
  nn::BatchSlices* slices = nullptr;        // of the optimizer; null: the batch is one
  PhaseTimer* timer = nullptr;              // marked after each phase; null: nobody asks
  std::vector<std::pair<std::string, double>> told = {};  // for the meter: see StepMeter
  /// Only with slices: the batch at hand is a part. lambda and temperature are of the whole batch.
  std::optional<BatchShare> share = {};
};

/// What a step leaves behind, still on the device: nothing is read back until asked, so ask once
/// per log interval.
struct StepReport {
  std::vector<TermLoss> parts;  // of each micro-batch, all terms together, detached
  std::vector<std::int64_t> rows;
  std::vector<std::int64_t> slice_rows;  // slice of each part, of those that have samples
  std::vector<Tensor> targets;           // of each part; undefined: none
  std::int64_t samples = 0;              // of the batch; of the slices that were run here

  double loss() const;       // waits for the device
  StepNumbers host() const;  // waits for the device
  /// A column's values, row by row in the order of the batch. Waits for the device.
  std::vector<float> column(const std::string& name) const;
  /// The numbers of part i into the meter's row of its slice; row, slot: of the step (StepMeter).
  ColumnNames write_part(std::size_t i, const StepMeter& meter, std::int64_t row,
                         const Tensor& slot) const;
};

/// Clips, steps the optimizer and clears the gradients.
using Update = std::function<void()>;

/// Who answers for the teachers of a stage: teacher t about a part of the batch.
using Answer = std::function<nn::Outputs(std::size_t t, const nn::Batch& part, std::int64_t begin,
                                         const nn::Want& want)>;

/// What a step works with. The same for a step on its own and for one that is captured.
struct StepContext {
  nn::Model& student;
  std::size_t teachers = 0;  // of the stage
  const Answer& answer;
  const Update& update;
  std::int64_t micro_batch = 0;  // samples; 0: the whole slice
  PhaseTimer* timer = nullptr;
  /// Told of each part when its gradient is there; may be empty.
  std::function<void(const StepReport& so_far)> after_part = {};
  nn::BatchSlices* slices = nullptr;  // null: the batch is one slice
  std::optional<BatchShare> share = {};
};

/// The step: teachers' answers (no gradient), student forward, terms, backward, update.
///
///   L = sum over terms k of w_k L_k
///
/// With micro_batch the gradient is accumulated over consecutive parts of the batch. What a term
/// divides by is the whole batch's for each of them, so any split gives the same loss and gradient
/// up to rounding (batch norm sees a part at a time, as everywhere). Teachers are asked for what
/// the terms want of them, and not at all if no term does.
///
/// With slices the batch is first cut in M parts (nn::slice_of), whose gradients and statistics are
/// added as nn::BatchSlices says, so that the bytes depend on M and not on who computes a slice;
/// micro_batch says how many samples of a slice pass at once. Where ranks share the batch, this one
/// runs its slices, of the whole batch or, with a BatchShare, of a batch that holds nothing else;
/// the report has numbers of these slices alone.
///
/// rows: of the whole batch, as Rows says; with a BatchShare its targets are those at hand.
/// Errors    kUsage for a batch that does not fit together, or a BatchShare that is not that of its
///           slices; what models and terms throw. The
///           gradients of student and terms are cleared then, and no update has been made (running
///           statistics may have seen a part of the batch).
StepReport one_step(const StepContext& context, const nn::Batch& batch, const Terms& terms,
                    const Rows& rows);

/// One step of distillation from one teacher, as most programs want it:
///
///   L = (1/Z) sum_i [(1 - lambda_i) CE_i + lambda_i tau_i^2 KL_i]
///
/// over the Z rows whose target is not -100; such a row counts nowhere. A teacher is not asked if
/// there is none (null) or every lambda is 0. Other objectives: give the terms.
///
/// Errors    kUsage for lambda or temperature of another length than 1 or B, one that is not finite
///           (or a temperature that is not > 0), or a lambda that is not 0 without a teacher; those
///           of one_step() and check_apart().
StepReport distill_step(const Teacher* teacher, nn::Model& student, const nn::Batch& batch,
                        const StepSettings& settings, const Update& update,
                        const Terms& terms = soft_targets());

/// A teacher of a run, and what it sees of a batch: Batch::read_by(reading).
struct RunTeacher {
  std::shared_ptr<const Teacher> teacher;
  std::size_t reading = 1;
};

/// One step as it runs on its own: one_step() with these teachers' answers; its numbers go to the
/// meter, if there is one; after an error it has no row of this step. Errors    those of
/// distill_step().
StepReport eager_step(std::span<const RunTeacher> teachers, const Terms& terms, nn::Model& student,
                      const nn::Batch& batch, const StepSettings& settings, const Update& update,
                      StepMeter* meter = nullptr);

/// A student that is a teacher of its own, or has a parameter or a running statistic in memory that
/// is its teacher's, would train it. Asked before an optimizer takes the student's parameters over.
/// Errors    kUsage naming it.
void check_apart(const Teacher& teacher, nn::Model& student);

/// Whether the settings give the teacher a share: some lambda is not 0.
/// Errors    kUsage as distill_step() for lambda, temperature and micro_batch.
bool asks_teacher(const StepSettings& settings, std::int64_t samples, bool has_teacher);

/// Rows of a batch on its device. lambda and temperature stay undefined if no teacher is asked.
Rows rows_of(const nn::Batch& batch, const StepSettings& settings, bool asks);

/// What the terms want of each teacher for these rows, together; nothing: no term asks.
std::optional<nn::Want> want_of_teachers(const Terms& terms, const Rows& rows);

/// A teacher's answer about a part of a batch, from its cache where it has one and logits are all
/// that is wanted. `reading`: what the teacher sees of the batch.
nn::Outputs answer_of(const Teacher& teacher, const nn::Batch& part, std::size_t reading,
                      const nn::Want& want);

}  // namespace retort::distill
