// The angle between features of student and teacher: the last ones, or those of every hidden layer.
#pragma once
#include <utility>

#include "distill/terms/term.h"

namespace retort::nn {
class Linear;
}

namespace retort::distill {

/// What the angle is measured of.
enum class CosineOver : std::uint8_t {
  kRows,       // what the last layer reads, of each row of logits (nn::Outputs::features)
  kPositions,  // the last hidden layer, at every position of a text (nn::Outputs::post)
  kLayers,     // hidden layers, at every position: the sum over layers
};
const char* name_of(CosineOver over);
/// "rows", "positions" or "layers". Errors    kUsage that lists them.
CosineOver parse_cosine_over(const std::string& text);

struct CosineOptions {
  std::uint64_t seed = 0;  // draws the map, where there is one
  CosineOver over = CosineOver::kRows;
  std::vector<std::int64_t> layers = {};  // kLayers: of the student, 1-based; empty: all
};

/// Mean over rows, or over all positions, of 1 - cos(s_i, t_i), s and t the student's and the
/// teacher's; of layers the sum of those means, layer i beside the teacher's round(i L_T / L_S).
/// Where they differ in width, s goes through a linear map (of its layer) that is trained with the
/// student and thrown away behind the stage.
///
/// Columns   loss_cos: its loss, a mean over steps; the weight is not in it.
/// Numerics  a zero vector has cosine 0 with everything.
/// Errors    kUsage for more than one teacher, a model without the hidden layers that are asked for,
///           or a layer that the student does not have.
/// Source    Sanh et al. 2019 (DistilBERT), arXiv:1910.01108, section 3; layers: Rohanian et al. 2023
///           (CompactBioBERT), arXiv:2209.03182.
class Cosine : public Term {
 public:
  explicit Cosine(const CosineOptions& options) : options_(options) {}
  std::string name() const override { return "cosine"; }
  nn::Want of_student() const override {
    const bool hidden = options_.over != CosineOver::kRows;
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
  struct Pair {
    std::size_t student = 0, teacher = 0;  // layers from 0
    const nn::Linear* map = nullptr;       // owned by map_; null: widths agree
  };
  Tensor vectors_of(const nn::Outputs& outputs, std::size_t layer) const;

  CosineOptions options_;
  std::vector<Pair> pairs_ = {{}};  // one, but of layers
  std::shared_ptr<nn::Module> map_;
};

/// Mean over rows of 1 - cos(a_i, b_i), differentiable with respect to both. a, b (N, m).
Tensor cosine_distance(const Tensor& a, const Tensor& b);

}  // namespace retort::distill
