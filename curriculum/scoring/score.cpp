#include "curriculum/scoring/score.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/check.h"

namespace retort::curriculum {
namespace {

constexpr ScoreKind kKinds[] = {ScoreKind::kLogit, ScoreKind::kProb,   ScoreKind::kLogprob,
                                ScoreKind::kPTrue, ScoreKind::kMargin, ScoreKind::kEntropy,
                                ScoreKind::kLoss};

}  // namespace

const char* name_of(ScoreKind kind) {
  switch (kind) {
    case ScoreKind::kLogit: return "logit";
    case ScoreKind::kProb: return "prob";
    case ScoreKind::kLogprob: return "logprob";
    case ScoreKind::kPTrue: return "p_true";
    case ScoreKind::kMargin: return "margin";
    case ScoreKind::kEntropy: return "entropy";
    case ScoreKind::kLoss: return "loss";
  }
  return "?";
}

ScoreKind parse_score_kind(const std::string& text) {
  for (const ScoreKind kind : kKinds)
    if (text == name_of(kind)) return kind;
  fail(ErrorCode::kUsage,
       "[score] expected logit, prob, logprob, p_true, margin, entropy or loss, got '", text, "'");
}

bool high_is_easy(ScoreKind kind) {
  return kind != ScoreKind::kEntropy && kind != ScoreKind::kLoss;
}

SampleStatistics statistics_of_logits(std::span<const float> logits, std::int64_t classes,
                                      std::span<const std::int32_t> labels) {
  const std::size_t n = labels.size();
  RETORT_CHECK(classes >= 1, "[score] expected at least 1 class, got ", classes);
  const auto width = static_cast<std::size_t>(classes);
  RETORT_CHECK(logits.size() == n * width, "[score] expected ", n, " x ", classes, " logits, got ",
               logits.size());
  SampleStatistics s;
  for (auto* array :
       {&s.max_logit, &s.max_prob, &s.max_logprob, &s.p_true, &s.margin, &s.entropy, &s.loss})
    array->resize(n);
  s.correct.resize(n);
  for (std::size_t i = 0; i < n; ++i) {
    const auto z = logits.subspan(i * width, width);
    RETORT_CHECK(labels[i] >= 0 && labels[i] < classes, "[score] expected a label below ", classes,
                 ", got ", labels[i], " for sample ", i);
    std::size_t top = 0;
    for (std::size_t c = 0; c < width; ++c) {
      RETORT_CHECK_AS(kNumerics, !std::isnan(z[c]) && z[c] < HUGE_VALF,
                      "[score] expected finite logits, got ", z[c], " for sample ", i);
      if (z[c] > z[top]) top = c;
    }
    const double max = static_cast<double>(z[top]);
    RETORT_CHECK_AS(kNumerics, std::isfinite(max), "[score] all logits of sample ", i, " are -inf");
    double sum = 0, weighted = 0, second = -HUGE_VAL;
    for (std::size_t c = 0; c < width; ++c) {
      const double shifted = static_cast<double>(z[c]) - max, e = std::exp(shifted);
      sum += e;
      if (e > 0) weighted += e * shifted;
      if (c != top) second = std::max(second, static_cast<double>(z[c]));
    }
    const double log_sum = std::log(sum);
    const double log_true =
        static_cast<double>(z[static_cast<std::size_t>(labels[i])]) - max - log_sum;
    s.max_logit[i] = z[top];
    s.max_logprob[i] = static_cast<float>(-log_sum);
    s.max_prob[i] = static_cast<float>(1 / sum);
    s.p_true[i] = static_cast<float>(std::exp(log_true));
    s.margin[i] = static_cast<float>(-std::expm1(second - max) / sum);
    s.entropy[i] = static_cast<float>(std::max(0.0, log_sum - weighted / sum));
    s.loss[i] = static_cast<float>(-log_true);
    s.correct[i] = top == static_cast<std::size_t>(labels[i]) ? 1 : 0;
  }
  return s;
}

std::span<const float> scores_of(const SampleStatistics& s, ScoreKind kind) {
  const std::vector<float>* array = nullptr;
  switch (kind) {
    case ScoreKind::kLogit: array = &s.max_logit; break;
    case ScoreKind::kProb: array = &s.max_prob; break;
    case ScoreKind::kLogprob: array = &s.max_logprob; break;
    case ScoreKind::kPTrue: array = &s.p_true; break;
    case ScoreKind::kMargin: array = &s.margin; break;
    case ScoreKind::kEntropy: array = &s.entropy; break;
    case ScoreKind::kLoss: array = &s.loss; break;
  }
  RETORT_CHECK(array->size() == s.correct.size() || s.correct.empty(), "[score] expected ",
               s.correct.size(), " values of '", name_of(kind), "', got ", array->size());
  return *array;
}

std::vector<float> easiness_of(ScoreKind kind, std::span<const float> scores) {
  std::vector<float> easiness(scores.begin(), scores.end());
  if (!high_is_easy(kind))
    for (float& e : easiness) e = -e;
  return easiness;
}

std::vector<float> confidence_of(ScoreKind kind, std::span<const float> scores, double quantile,
                                 std::span<const std::uint8_t> excluded) {
  RETORT_CHECK(excluded.empty() || excluded.size() == scores.size(), "[score] expected ",
               scores.size(), " exclusion flags, got ", excluded.size());
  std::vector<float> confidence(scores.begin(), scores.end());
  if (high_is_easy(kind) || scores.empty()) return confidence;
  std::vector<float> finite;
  for (std::size_t i = 0; i < scores.size(); ++i)
    if (std::isfinite(scores[i]) && (excluded.empty() || !excluded[i])) finite.push_back(scores[i]);
  RETORT_CHECK_AS(kNumerics, !finite.empty(), "[score] no finite ", name_of(kind), " among ",
                  scores.size(), " samples");
  const double limit = quantile_of(std::move(finite), quantile);
  for (float& c : confidence)
    c = limit <= 0 ? 1.0f : static_cast<float>(1 - std::min(static_cast<double>(c), limit) / limit);
  return confidence;
}

CleanScores clean_scores(std::span<const float> scores, NanPolicy policy, double value) {
  CleanScores clean;
  clean.scores.assign(scores.begin(), scores.end());
  clean.excluded.assign(scores.size(), 0);
  std::vector<float> finite;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (std::isfinite(scores[i])) {
      finite.push_back(scores[i]);
      continue;
    }
    RETORT_CHECK_AS(kNumerics, policy != NanPolicy::kRefuse, "[score] expected finite scores, got ",
                    scores[i], " for sample ", i);
    clean.excluded[i] = 1;
    ++clean.bad;
  }
  RETORT_CHECK_AS(kNumerics, scores.empty() || !finite.empty(), "[score] none of the ",
                  scores.size(), " scores is finite");
  float replacement = 0;
  if (policy == NanPolicy::kSentinel) replacement = static_cast<float>(value);
  if (policy == NanPolicy::kQuantile && clean.bad > 0)
    replacement = static_cast<float>(quantile_of(std::move(finite), value));
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (clean.excluded[i]) clean.scores[i] = replacement;
    if (!clean.excluded[i] || policy != NanPolicy::kDrop)
      clean.kept.push_back(static_cast<std::int64_t>(i));
  }
  if (clean.bad > 0)
    clean.warning =
        join(clean.bad, " of ", scores.size(),
             " scores were not finite: ", policy == NanPolicy::kDrop ? "dropped" : "replaced",
             ", and left out of every normaliser");
  return clean;
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
