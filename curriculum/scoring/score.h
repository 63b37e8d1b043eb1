// From what a model says about a sample to one number per sample.
//
// Note [Directions]
//   score       in the units of its kind, as reports and curriculum files show it
//   easiness    a score turned so that high means easy: what orders are sorted by
//   confidence  C of the reliance formulas: high means easy, and comparable with its maximum
//   difficulty  high means hard (the opposite of easiness); no function here takes one
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "curriculum/scoring/sample_statistics.h"
#include "nn/registry.h"

namespace retort::curriculum {

/// A kind of score: one row of the registry.
struct ScoreKind {
  std::vector<std::string> names;
  bool high_is_easy = true;
  bool sees_label = false;      // knows of a wrong answer by itself: orders sort by it alone
  bool of_data = false;         // no model is asked: SampleStatistics::of_data, by the row's name
  bool never_positive = false;  // no literal reliance, which divides by the largest
  std::string doc = {};         // one sentence, with unit and range
  /// (N), NaN for what cannot be scored. An empty array of the statistics was not measured.
  std::function<std::vector<float>(const SampleStatistics&)> of = {};

  const char* name() const { return names.front().c_str(); }
};

/// The rows; score_kinds().add(kind) from outside. See nn/registry.h.
nn::Registry<ScoreKind>& score_kinds();

/// Scores by sample. Errors    kUsage if what the kind reads was not measured.
std::vector<float> scores_of(const SampleStatistics& statistics, const ScoreKind& kind);

/// score or -score, so that high is easy.
std::vector<float> easiness_of(const ScoreKind& kind, std::span<const float> scores);

/// How C comes from scores D of which low is easy.
enum class ConfidenceForm : std::uint8_t {
  kLinear,  // 1 - min(D, D_q) / D_q,  D_q the quantile q of the finite D that are not excluded
  kExp,     // exp(-D): of a mean loss the geometric mean of the probabilities
  kRank,    // 1 - r / (N - 1),  r the number of samples with smaller D
};
struct ConfidenceOptions {
  ConfidenceForm form = ConfidenceForm::kLinear;
  double quantile = 0.99;  // kLinear
};
/// The keys confidence and confidence_quantile of [curriculum], and what complete options ask for.
std::vector<nn::OptionSpec> confidence_options();
ConfidenceOptions confidence_options_of(const nn::Options& options);

/// C for the reliance formulas: scores of which high is easy as they are (kRank: 1 - r / (N - 1), r
/// the number with larger ones), others as the form says; kLinear: all 1 if D_q is 0. N counts what
/// is not excluded. excluded is empty or (N): samples that carry a sentinel; what they get is of no
/// meaning.
std::vector<float> confidence_of(const ScoreKind& kind, std::span<const float> scores,
                                 const ConfidenceOptions& options = {},
                                 std::span<const std::uint8_t> excluded = {});

/// Linear interpolation between closest ranks. q in [0, 1]; values must not be empty.
double quantile_of(std::vector<float> values, double q);

}  // namespace retort::curriculum
