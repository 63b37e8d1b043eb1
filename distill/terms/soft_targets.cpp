#include "distill/terms/soft_targets.h"

#include <utility>

#include "distill/losses/linear_distillation_loss.h"
#include "engine/ops/cast.h"

namespace retort::distill {

nn::Want SoftTargets::of_student() const { return {.head = options_.logits_memory > 0}; }

std::optional<nn::Want> SoftTargets::of_teacher(const Rows& rows) const {
  if (!rows.lambda.defined()) return std::nullopt;
  return of_student();
}

DistillationLossResult SoftTargets::loss_of(const nn::Outputs& student, const nn::Outputs* teacher,
                                            const Rows& rows) const {
  DistillationLossArgs args;
  args.targets = rows.targets;
  args.sample_of_row = rows.sample_of_row;
  args.normalizer = rows.normalizer;
  args.divergence = options_.divergence;
  args.parameter = options_.parameter;
  args.tau_power = options_.tau_power;
  if (teacher != nullptr) {
    args.lambda = rows.lambda;
    args.temperature = rows.temperature;
  }
  if (student.logits.defined()) {
    args.student_logits = student.logits;                                   // (N, V)
    if (teacher != nullptr) args.teacher_logits = nn::logits_of(*teacher);  // (N, V)
    return distillation_loss(args);
  }
  LinearDistillationLossArgs parts;
  const auto features_of = [](const nn::Outputs& outputs) {
    return cast(outputs.features, outputs.head.weight.dtype());  // (N, m)
  };
  RETORT_CHECK(student.head.defined() && student.features.defined(),
               "[soft_targets] expected logits of the student, or its features and head");
  parts.features = features_of(student);
  parts.head = student.head;
  if (teacher != nullptr && teacher->logits.defined()) {
    args.teacher_logits = teacher->logits;
  } else if (teacher != nullptr) {
    parts.teacher_features = features_of(*teacher);
    parts.teacher_head = teacher->head;
  }
  parts.rows = std::move(args);
  parts.logits_memory = options_.logits_memory;
  parts.recompute = options_.recompute;
  return linear_distillation_loss(parts);
}

TermLoss SoftTargets::operator()(const nn::Outputs& student, std::span<const nn::Outputs> teachers,
                                 const Rows& rows) const {
  RETORT_CHECK(teachers.size() <= 1, "[soft_targets] expected one teacher, got ", teachers.size());
  const bool taught = !teachers.empty() && rows.lambda.defined();
  const DistillationLossResult loss = loss_of(student, taught ? &teachers[0] : nullptr, rows);
  TermLoss result{loss.total, {}};
  if (rows.targets.defined()) result.columns.push_back({"loss_ce", loss.ce});
  if (taught) result.columns.push_back({"loss_kd", loss.kd});
  if (rows.targets.defined()) {
    result.columns.push_back({"accuracy", loss.student_correct});
    if (taught) result.columns.push_back({"teacher_accuracy", loss.teacher_correct});
  }
  return result;
}

std::string SoftTargets::key() const {
  return join(name(), " ", kernels::name_of(options_.divergence), " ", options_.parameter, " ",
              options_.tau_power, " ", options_.logits_memory, " ", options_.recompute);
}

Terms soft_targets(const SoftTargetsOptions& options) {
  return {{1, std::make_shared<SoftTargets>(options)}};
}

}  // namespace retort::distill
