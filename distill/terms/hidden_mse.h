// Hints: the student's hidden layers against the teacher's, through learned linear maps.
#pragma once
#include "distill/terms/term.h"

namespace retort::distill {

struct HiddenMseOptions {
  std::vector<std::int64_t> layers = {};  // of the student, 1-based; empty: all
  std::uint64_t seed = 0;                 // draws the maps
};

/// sum over layers i of mean over samples and components of (W_i s_i + b_i - t_j)^2, j = round(i
/// L_T / L_S), s and t the activations after the nonlinearity, averaged over an image. W_i, b_i are
/// trained with the student and thrown away behind the stage.
///
/// Columns   loss_hidden: its loss, a mean over steps; the weight is not in it.
/// Errors    kUsage for a layer that the student does not have, more than one teacher, or a model
///           without hidden layers.
/// Source    hints: Romero et al. 2015, arXiv:1412.6550 (there one layer, a convolution as the
/// map).
class HiddenMse : public Term {
 public:
  explicit HiddenMse(const HiddenMseOptions& options) : options_(options) {}
  std::string name() const override { return "hidden_mse"; }
  nn::Want of_student() const override { return {0, true, false, true}; }
  std::optional<nn::Want> of_teacher(const Rows&) const override { return of_student(); }
  TermLoss operator()(const nn::Outputs& student, std::span<const nn::Outputs> teachers,
                      const Rows& rows) const override;
  void begin(const Calibration& calibration, bool resuming) override;
  bool calibrates() const override { return true; }
  nn::Module* trained() override;
  std::string key() const override;

 private:
  class Maps;
  HiddenMseOptions options_;
  std::shared_ptr<Maps> maps_;
};

/// The same loss from the activations themselves, in plain ops: its definition.
///
/// Shapes    mapped and teacher (B, m) per layer
Tensor hidden_mse_composed(std::span<const Tensor> mapped, std::span<const Tensor> teacher);

}  // namespace retort::distill
