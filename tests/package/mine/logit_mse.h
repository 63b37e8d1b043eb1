// A loss term of one's own.
#pragma once
#include "distill/terms/registry.h"

namespace mine {

/// Mean over rows and classes of (s - t)^2: the logits themselves (Ba, Caruana 2014).
///
/// Columns   loss_logit_mse: a mean over steps; the weight is not in it.
class LogitMse : public retort::distill::Term {
 public:
  std::string name() const override { return "logit_mse"; }
  retort::nn::Want of_student() const override { return {}; }
  std::optional<retort::nn::Want> of_teacher(const retort::distill::Rows&) const override {
    return retort::nn::Want{};
  }
  retort::distill::TermLoss operator()(const retort::nn::Outputs& student,
                                       std::span<const retort::nn::Outputs> teachers,
                                       const retort::distill::Rows& rows) const override;
};

/// "logit_mse", for the registry.
retort::distill::TermKind logit_mse_kind();

}  // namespace mine
