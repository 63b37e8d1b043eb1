// Regression on random projections of a teacher's hidden layer, as a term: curriculum extraction.
#pragma once
#include "distill/terms/projection_target.h"
#include "distill/terms/term.h"

namespace retort::distill {

struct ProjectionOptions {
  ProjectionVariant variant = ProjectionVariant::kPost;
  std::int64_t width = 0;          // p of kHead; others take the student's width
  std::int64_t student_layer = 1;  // i, from the input side, 1-based
  std::uint64_t seed = 0;          // draws P_i, and Q_i of kHead; a hash: seed + i is used
  bool centre = true, scale = true;
};

/// Mean over samples of ||s(x) - t(x)||^2 / p: t a frozen random projection of the teacher's layer
/// round(i L_T / L_S) (ProjectionTarget), s the student's layer i, or a trained linear map of it.
/// Both networks are computed up to their layer and no further.
///
/// Columns   none: its loss is all there is.
/// Errors    kUsage for a layer that the student does not have, or a teacher without hidden layers.
class Projection : public Term {
 public:
  explicit Projection(const ProjectionOptions& options) : options_(options) {}
  std::string name() const override { return "projection"; }
  nn::Want of_student() const override { return {options_.student_layer, true}; }
  std::optional<nn::Want> of_teacher(const Rows&) const override {
    return nn::Want{teacher_layer_, true};
  }
  TermLoss operator()(const nn::Outputs& student, std::span<const nn::Outputs> teachers,
                      const Rows& rows) const override;
  void begin(const Calibration& calibration, bool resuming) override;
  bool calibrates() const override { return true; }
  nn::Module* trained() override { return head_.get(); }
  NamedTensors state() const override;
  void load_state(const NamedTensors& state) override;
  std::string key() const override;

 private:
  Tensor student_side(const nn::Outputs& student) const;

  ProjectionOptions options_;
  std::int64_t teacher_layer_ = 1;  // 1-based
  std::unique_ptr<ProjectionTarget> target_;
  std::shared_ptr<nn::Module> head_;  // of kHead
};

}  // namespace retort::distill
