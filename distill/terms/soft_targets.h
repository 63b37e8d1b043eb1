// The ordinary objective of distillation, as a term: labels and the teacher's soft targets.
#pragma once
#include "distill/losses/distillation_loss.h"
#include "distill/terms/term.h"

namespace retort::distill {

struct SoftTargetsOptions {
  AnyDivergence divergence = Divergence::kForwardKl;
  double parameter = -1;        // of the divergence; -1: its default
  std::int32_t tau_power = -1;  // n; -1: the divergence's own
  /// Bytes that logits of student and teacher may take at a time, where the models can leave them
  /// to the loss (nn::Want::head); 0: all logits of a batch at once.
  std::int64_t logits_memory = 0;
  bool recompute = false;  // as in LinearDistillationLossArgs
};

/// (1/Z) sum_i [(1 - lambda_i) CE_i + lambda_i tau_i^n D(p_T || p_S)_i]: one fused pass over the
/// logits (distillation_loss.h), with logits_memory chunk by chunk (linear_distillation_loss.h).
/// Without a lambda in the rows: the labels alone.
///
/// Columns   loss_ce (nats a row) where there are targets; loss_kd (nats a row, with tau^n) and
///           teacher_accuracy with a teacher; accuracy.
/// Errors    kUsage for more than one teacher.
class SoftTargets : public Term {
 public:
  explicit SoftTargets(const SoftTargetsOptions& options = {}) : options_(options) {}
  std::string name() const override { return "soft_targets"; }
  nn::Want of_student() const override;
  std::optional<nn::Want> of_teacher(const Rows& rows) const override;
  TermLoss operator()(const nn::Outputs& student, std::span<const nn::Outputs> teachers,
                      const Rows& rows) const override;
  std::string key() const override;

 private:
  DistillationLossResult loss_of(const nn::Outputs& student, const nn::Outputs* teacher,
                                 const Rows& rows) const;

  SoftTargetsOptions options_;
};

/// One SoftTargets of weight 1.
Terms soft_targets(const SoftTargetsOptions& options = {});

}  // namespace retort::distill
