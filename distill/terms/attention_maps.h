// What each position looks at: the student's attention maps against the teacher's.
#pragma once
#include <utility>

#include "distill/terms/term.h"

namespace retort::distill {

/// How two rows of attention are compared, s the student's and t the teacher's, over the L positions
/// of a sequence.
enum class AttentionDistance : std::uint8_t {
  kKl,             // sum_j t_j (log t_j - log s_j) of probabilities
  kProbabilities,  // 1/L sum_j (s_j - t_j)^2 of probabilities
  kScores,         // 1/L sum_j (s_j - t_j)^2 of q k^T / sqrt(D)
};
const char* name_of(AttentionDistance distance);
/// "kl", "probabilities" or "scores". Errors    kUsage that lists them.
AttentionDistance parse_attention_distance(const std::string& text);

struct AttentionMapsOptions {
  std::vector<std::int64_t> layers = {};  // of the student, 1-based; empty: all
  AttentionDistance distance = AttentionDistance::kKl;
};

/// sum over layers i of the mean over positions and heads of the distance between the student's row
/// of attention and that of the teacher's layer round(i L_T / L_S). Before dropout; heads are
/// compared in their order.
///
/// A mean over rows, so that parts of a batch add up to the whole; published code takes it over all
/// elements of the padded maps, padding included.
///
/// Columns   loss_attention: its loss, a mean over steps; the weight is not in it.
/// Cost      plain ops, sequence by sequence and head by head, (L, L) numbers each: 4 L^2 D
///           operations more a head and sequence, forward and backward in the student.
/// Errors    kUsage, beginning with [attention], for a layer that the student does not have, more
///           than one teacher, other numbers of heads, a model without attention, a causal one.
/// Source    KL: Rohanian et al. 2023 (CompactBioBERT), arXiv:2209.03182; scores: Jiao et al. 2020
///           (TinyBERT), arXiv:1909.10351, equation 7.
class AttentionMaps : public Term {
 public:
  explicit AttentionMaps(const AttentionMapsOptions& options) : options_(options) {}
  std::string name() const override { return "attention"; }
  nn::Want of_student() const override { return {.head = true, .attention = true}; }
  std::optional<nn::Want> of_teacher(const Rows&) const override { return of_student(); }
  TermLoss operator()(const nn::Outputs& student, std::span<const nn::Outputs> teachers,
                      const Rows& rows) const override;
  void begin(const Calibration& calibration, bool resuming) override;
  bool calibrates() const override { return true; }
  std::string key() const override;

 private:
  AttentionMapsOptions options_;
  std::vector<std::pair<std::size_t, std::size_t>> pairs_;  // layers of student, teacher, from 0
};

/// Mean over rows and heads of one layer's distance, differentiable with respect to the student.
///
/// Shapes    student and teacher (T, heads D) each, D of its own; starts (S + 1): sequences s are
///           rows starts[s] to starts[s + 1], none of them causal.
/// Numerics  bf16 is compared in f32.
Tensor attention_distance(const nn::AttentionReads& student, const nn::AttentionReads& teacher,
                          std::span<const std::int32_t> starts, AttentionDistance distance);

}  // namespace retort::distill
