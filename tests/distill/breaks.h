// A term that throws when it is asked to, for tests of what a step leaves behind.
#pragma once
#include "distill/terms/term.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"

namespace retort::test {

/// The mean of the student's logits; throws Error(kUsage) at its call number `at`, counted from 1,
/// or when it begins.
class Breaks : public distill::Term {
 public:
  std::string name() const override { return "breaks"; }
  nn::Want of_student() const override { return {}; }
  std::optional<nn::Want> of_teacher(const distill::Rows&) const override { return std::nullopt; }
  bool calibrates() const override { return true; }
  void begin(const distill::Calibration& c, bool) override {
    const nn::Evaluating evaluating(c.student);
    if (begins++ == begin_at) fail(ErrorCode::kUsage, "[breaks] at its beginning");
  }
  distill::TermLoss operator()(const nn::Outputs& student, std::span<const nn::Outputs>,
                               const distill::Rows& rows) const override {
    if (++calls == at) fail(ErrorCode::kUsage, "[breaks] at call ", calls);
    const Tensor total = scale(mean(student.logits), rows.row_share);
    return {total, {{"mean", total.detach(), distill::Per::kStep}}};
  }

  int at = 0, begin_at = -1;
  mutable int calls = 0;
  int begins = 0;
};

}  // namespace retort::test
