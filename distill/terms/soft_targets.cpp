#include "distill/terms/soft_targets.h"

namespace retort::distill {

std::optional<nn::Want> SoftTargets::of_teacher(const Rows& rows) const {
  if (!rows.lambda.defined()) return std::nullopt;
  return nn::Want{};
}

TermLoss SoftTargets::operator()(const nn::Outputs& student, std::span<const nn::Outputs> teachers,
                                 const Rows& rows) const {
  RETORT_CHECK(teachers.size() <= 1, "[soft_targets] expected one teacher, got ", teachers.size());
  const bool taught = !teachers.empty() && rows.lambda.defined();
  DistillationLossArgs args;
  args.student_logits = student.logits;  // (N, V)
  args.targets = rows.targets;
  args.sample_of_row = rows.sample_of_row;
  args.normalizer = rows.normalizer;
  args.divergence = options_.divergence;
  args.parameter = options_.parameter;
  if (taught) {
    args.teacher_logits = teachers[0].logits;  // (N, V)
    args.lambda = rows.lambda;
    args.temperature = rows.temperature;
  }
  const DistillationLossResult loss = distillation_loss(args);
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
  return join(name(), " ", kernels::name_of(options_.divergence), " ", options_.parameter);
}

Terms soft_targets(const SoftTargetsOptions& options) {
  return {{1, std::make_shared<SoftTargets>(options)}};
}

}  // namespace retort::distill
