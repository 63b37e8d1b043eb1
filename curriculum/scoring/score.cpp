#include "curriculum/scoring/score.h"

#include <algorithm>
#include <cmath>

#include "curriculum/names.h"
#include "kernels/common/check.h"

namespace retort::curriculum {
namespace {

constexpr Named<ConfidenceForm> kForms[] = {{ConfidenceForm::kLinear, "linear"},
                                            {ConfidenceForm::kExp, "exp"},
                                            {ConfidenceForm::kRank, "rank"}};

using Array = std::vector<float> SampleStatistics::*;

std::function<std::vector<float>(const SampleStatistics&)> array(Array member) {
  return [member](const SampleStatistics& s) { return s.*member; };
}

// A number that the data has of each sample.
ScoreKind of_data(const std::string& name, std::string doc) {
  return {.names = {name},
          .high_is_easy = false,
          .of_data = true,
          .doc = std::move(doc),
          .of = [name](const SampleStatistics& s) {
            const auto at = s.of_data.find(name);
            return at == s.of_data.end() ? std::vector<float>() : at->second;
          }};
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
           .of = array(&SampleStatistics::loss)},
          of_data("text_length", "Tokens of the text, special ones aside; high is hard."),
          of_data("sentence_length", "Words a sentence of the text; high is hard."),
          of_data("word_frequency",
                  "Mean over the text's words of -log of their share of the corpus, nats; high is "
                  "hard."),
          of_data("diction",
                  "Distinct words among the text's first 100, divided by their number, (0, 1]; "
                  "high is hard.")};
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
               scores.empty() && kind.sees_label ? ": it is measured against labels"
               : scores.empty() && kind.of_data  ? ": this data has no such number"
                                                 : "");
  return scores;
}

std::vector<float> easiness_of(const ScoreKind& kind, std::span<const float> scores) {
  std::vector<float> easiness(scores.begin(), scores.end());
  if (!kind.high_is_easy)
    for (float& e : easiness) e = -e;
  return easiness;
}

std::vector<nn::OptionSpec> confidence_options() {
  const ConfidenceOptions standard;
  return {
      nn::choice_option("confidence", name_in(kForms, standard.form), joined(names_in(kForms), "|"),
                        "C of the reliance formulas from a score of which low is easy: linear up "
                        "to a quantile, exp(-score), or the rank.")
          .with(nn::kChangesOrder),
      nn::number_option("confidence_quantile", standard.quantile, 0.01, 1, "quantile",
                        "confidence = \"linear\": the score from which on C is 0.")
          .with(nn::kChangesOrder)};
}

ConfidenceOptions confidence_options_of(const nn::Options& options) {
  return {parse_in(kForms, "confidence", options.text("confidence")),
          options.number("confidence_quantile")};
}

namespace {

// 1 - r / (N - 1), r the number of smaller values of N.
std::vector<float> by_rank(std::span<const float> values, std::vector<float> counted) {
  std::sort(counted.begin(), counted.end());
  const double last = std::max<double>(1, static_cast<double>(counted.size()) - 1);
  std::vector<float> confidence;
  for (const float v : values) {
    const auto below = std::lower_bound(counted.begin(), counted.end(), v) - counted.begin();
    confidence.push_back(static_cast<float>(1 - static_cast<double>(below) / last));
  }
  return confidence;
}

}  // namespace

std::vector<float> confidence_of(const ScoreKind& kind, std::span<const float> scores,
                                 const ConfidenceOptions& options,
                                 std::span<const std::uint8_t> excluded) {
  RETORT_CHECK(excluded.empty() || excluded.size() == scores.size(), "[score] expected ",
               scores.size(), " exclusion flags, got ", excluded.size());
  std::vector<float> confidence(scores.begin(), scores.end());
  const bool by_rank_too = options.form == ConfidenceForm::kRank;
  if (scores.empty() || (kind.high_is_easy && !by_rank_too)) return confidence;
  if (kind.high_is_easy)
    for (float& c : confidence) c = -c;
  std::vector<float> finite;
  for (std::size_t i = 0; i < scores.size(); ++i)
    if (std::isfinite(scores[i]) && (excluded.empty() || !excluded[i]))
      finite.push_back(confidence[i]);
  RETORT_CHECK_AS(kNumerics, !finite.empty(), "[score] no finite ", kind.name(), " among ",
                  scores.size(), " samples");
  if (by_rank_too) return by_rank(confidence, std::move(finite));
  if (options.form == ConfidenceForm::kExp) {
    for (float& c : confidence) c = std::exp(-c);
    return confidence;
  }
  const double limit = quantile_of(std::move(finite), options.quantile);
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
