// The angle between the last features of student and teacher.
#pragma once
#include "distill/terms/term.h"

namespace retort::distill {

/// What the angle is measured of.
enum class CosineOver : std::uint8_t {
  kRows,       // what the last layer reads, of each row of logits (nn::Outputs::features)
  kPositions,  // the last hidden layer, at every position of a text (nn::Outputs::post)
};
const char* name_of(CosineOver over);
/// "rows" or "positions". Errors    kUsage that lists them.
CosineOver parse_cosine_over(const std::string& text);

struct CosineOptions {
  std::uint64_t seed = 0;  // draws the map, where there is one
  CosineOver over = CosineOver::kRows;
};

/// Mean over rows, or over all positions, of 1 - cos(s_i, t_i), s and t the student's and the
/// teacher's. Where they differ in width, s goes through a linear map that is
/// trained with the student and thrown away behind the stage.
///
/// Columns   loss_cos: its loss, a mean over steps; the weight is not in it.
/// Numerics  a zero vector has cosine 0 with everything.
/// Errors    kUsage for more than one teacher, or kPositions of a model without hidden layers.
/// Source    Sanh et al. 2019 (DistilBERT), arXiv:1910.01108, section 3.
class Cosine : public Term {
 public:
  explicit Cosine(const CosineOptions& options) : options_(options) {}
  std::string name() const override { return "cosine"; }
  nn::Want of_student() const override {
    const bool hidden = options_.over == CosineOver::kPositions;
    return {.hidden = hidden, .features = !hidden, .head = true};
  }
  std::optional<nn::Want> of_teacher(const Rows&) const override { return of_student(); }
  TermLoss operator()(const nn::Outputs& student, std::span<const nn::Outputs> teachers,
                      const Rows& rows) const override;
  void begin(const Calibration& calibration, bool resuming) override;
  bool calibrates() const override { return true; }
  nn::Module* trained() override { return map_.get(); }
  std::string key() const override;

 private:
  Tensor vectors_of(const nn::Outputs& outputs) const;

  CosineOptions options_;
  std::shared_ptr<nn::Module> map_;
};

/// Mean over rows of 1 - cos(a_i, b_i), differentiable with respect to both. a, b (N, m).
Tensor cosine_distance(const Tensor& a, const Tensor& b);

}  // namespace retort::distill
