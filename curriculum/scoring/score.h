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

/// C for the reliance formulas: scores of which high is easy as they are; of others, D, by
///
///   C_i = 1 - min(D_i, D_q) / D_q,   D_q = quantile q of the finite D that are not excluded
///
/// (all 1 if D_q is 0). excluded is empty or (N): samples that carry a sentinel.
std::vector<float> confidence_of(const ScoreKind& kind, std::span<const float> scores,
                                 double quantile = 0.99,
                                 std::span<const std::uint8_t> excluded = {});

/// Linear interpolation between closest ranks. q in [0, 1]; values must not be empty.
double quantile_of(std::vector<float> values, double q);

}  // namespace retort::curriculum
