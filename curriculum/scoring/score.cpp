#include "curriculum/scoring/score.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/check.h"

namespace retort::curriculum {
namespace {

using Array = std::vector<float> SampleStatistics::*;

std::function<std::vector<float>(const SampleStatistics&)> array(Array member) {
  return [member](const SampleStatistics& s) { return s.*member; };
}

std::vector<ScoreKind> built_in() {
  return {{.names = {"logit"},
           .doc = "Largest logit, the papers' \"top-1 score\"; unbounded.",
           .of = array(&SampleStatistics::max_logit)},
          {.names = {"prob"},
           .doc = "Largest probability, (0, 1].",
           .of = array(&SampleStatistics::max_prob)},
          {.names = {"logprob"},
           .never_positive = true,
           .doc = "Logarithm of the largest probability, <= 0, nats.",
           .of = array(&SampleStatistics::max_logprob)},
          {.names = {"p_true"},
           .sees_label = true,
           .doc = "Probability of the label, [0, 1].",
           .of = array(&SampleStatistics::p_true)},
          {.names = {"margin"},
           .doc = "Largest minus second largest probability, [0, 1].",
           .of = array(&SampleStatistics::margin)},
          {.names = {"entropy"},
           .high_is_easy = false,
           .doc = "Entropy of the predicted distribution, >= 0, nats; high is hard.",
           .of = array(&SampleStatistics::entropy)},
          {.names = {"loss"},
           .high_is_easy = false,
           .sees_label = true,
           .doc = "Cross-entropy against the label, >= 0, nats; high is hard.",
           .of = array(&SampleStatistics::loss)}};
}

}  // namespace

nn::Registry<ScoreKind>& score_kinds() {
  static nn::Registry<ScoreKind> kinds("score", built_in());
  return kinds;
}

std::vector<float> scores_of(const SampleStatistics& statistics, const ScoreKind& kind) {
  std::vector<float> scores = kind.of(statistics);
  RETORT_CHECK(scores.size() == statistics.size(), "[score] expected ", statistics.size(),
               " values of '", kind.name(), "', got ", scores.size(),
               scores.empty() && kind.sees_label ? ": it is measured against labels" : "");
  return scores;
}

std::vector<float> easiness_of(const ScoreKind& kind, std::span<const float> scores) {
  std::vector<float> easiness(scores.begin(), scores.end());
  if (!kind.high_is_easy)
    for (float& e : easiness) e = -e;
  return easiness;
}

std::vector<float> confidence_of(const ScoreKind& kind, std::span<const float> scores,
                                 double quantile, std::span<const std::uint8_t> excluded) {
  RETORT_CHECK(excluded.empty() || excluded.size() == scores.size(), "[score] expected ",
               scores.size(), " exclusion flags, got ", excluded.size());
  std::vector<float> confidence(scores.begin(), scores.end());
  if (kind.high_is_easy || scores.empty()) return confidence;
  std::vector<float> finite;
  for (std::size_t i = 0; i < scores.size(); ++i)
    if (std::isfinite(scores[i]) && (excluded.empty() || !excluded[i])) finite.push_back(scores[i]);
  RETORT_CHECK_AS(kNumerics, !finite.empty(), "[score] no finite ", kind.name(), " among ",
                  scores.size(), " samples");
  const double limit = quantile_of(std::move(finite), quantile);
  for (float& c : confidence)
    c = limit <= 0 ? 1.0f : static_cast<float>(1 - std::min(static_cast<double>(c), limit) / limit);
  return confidence;
}

double quantile_of(std::vector<float> values, double q) {
  RETORT_CHECK(!values.empty() && q >= 0 && q <= 1,
               "[quantile] expected values and q in [0, 1], got ", values.size(),
               " values, q = ", q);
  std::sort(values.begin(), values.end());
  const double position = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  const double fraction = position - static_cast<double>(below);
  return (1 - fraction) * static_cast<double>(values[below]) +
         fraction * static_cast<double>(values[above]);
}

}  // namespace retort::curriculum
