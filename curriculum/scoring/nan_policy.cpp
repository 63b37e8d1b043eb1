#include "curriculum/scoring/nan_policy.h"

#include <cmath>

#include "curriculum/scoring/score.h"

namespace retort::curriculum {
namespace {

constexpr Named<NanRule> kRules[] = {{NanRule::kRefuse, "refuse"},
                                     {NanRule::kDrop, "drop"},
                                     {NanRule::kSentinel, "sentinel"},
                                     {NanRule::kQuantile, "quantile"}};

}  // namespace

const char* name_of(NanRule rule) { return name_in(kRules, rule); }
NanRule parse_nan_rule(const std::string& text) { return parse_in(kRules, "nan", text); }

std::vector<nn::OptionSpec> nan_options() {
  return {nn::choice_option("nan", name_of(NanRule::kRefuse), joined(names_in(kRules), "|"),
                            "Samples that cannot be scored: an error, left out, or given "
                            "nan_value or that quantile of the other scores.")
              .with(nn::kChangesOrder),
          nn::number_option("nan_value", 1, -1e30, 1e30, "",
                            "The score (nan = \"sentinel\") or the quantile (\"quantile\") of "
                            "samples that cannot be scored.")
              .with(nn::kChangesOrder)};
}

NanPolicy nan_policy_of(const nn::Options& options) {
  return {parse_nan_rule(options.text("nan")), options.number("nan_value")};
}

Mistake nan_mistake(const nn::Options& options) {
  const NanPolicy policy = nan_policy_of(options);
  if (policy.rule != NanRule::kQuantile || (policy.value >= 0 && policy.value <= 1)) return {};
  return {"nan_value", join("expected a quantile in [0, 1] for nan = \"", name_of(policy.rule),
                            "\", got ", policy.value)};
}

CleanScores clean_scores(std::span<const float> scores, const NanPolicy& policy,
                         std::span<const std::uint8_t> scored) {
  RETORT_CHECK(scored.empty() || scored.size() == scores.size(), "[score] expected ", scores.size(),
               " flags of scored samples, got ", scored.size());
  CleanScores clean;
  clean.scores.assign(scores.begin(), scores.end());
  clean.excluded.assign(scores.size(), 0);
  std::vector<float> finite;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const bool judged = scored.empty() || scored[i] != 0;
    if (judged && std::isfinite(scores[i])) {
      finite.push_back(scores[i]);
      continue;
    }
    RETORT_CHECK_AS(kNumerics, policy.rule != NanRule::kRefuse, "[score] sample ", i,
                    " cannot be scored: expected a finite score, got ",
                    judged ? join(scores[i]) : "none",
                    "; curriculum.nan may drop it or replace its score");
    clean.excluded[i] = 1;
    ++clean.bad;
  }
  RETORT_CHECK_AS(kNumerics, scores.empty() || !finite.empty(), "[score] none of the ",
                  scores.size(), " samples has a finite score");
  float replacement = 0;
  if (policy.rule == NanRule::kSentinel) replacement = static_cast<float>(policy.value);
  if (policy.rule == NanRule::kQuantile && clean.bad > 0)
    replacement = static_cast<float>(quantile_of(std::move(finite), policy.value));
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (clean.excluded[i]) clean.scores[i] = replacement;
    if (!clean.excluded[i] || policy.rule != NanRule::kDrop)
      clean.kept.push_back(static_cast<std::int64_t>(i));
  }
  if (clean.bad > 0)
    clean.warning = join(clean.bad, " of ", scores.size(), " samples could not be scored: ",
                         policy.rule == NanRule::kDrop ? "dropped" : "their scores replaced",
                         ", and left out of every normaliser");
  return clean;
}

}  // namespace retort::curriculum
