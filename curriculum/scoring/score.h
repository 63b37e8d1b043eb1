// From what a model says about a sample to one number per sample.
//
// Note [Directions]
//   score       in the units of its kind, as reports and curriculum files show it
//   easiness    a score turned so that high means easy: what orders are sorted by
//   confidence  C of the reliance formulas: high means easy, and comparable with its maximum
//   difficulty  high means hard (the opposite of easiness); no function here takes one
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace retort::curriculum {

enum class ScoreKind : std::uint8_t {
  kLogit,    // largest logit: the papers' "top-1 score"; unbounded
  kProb,     // largest probability, (0, 1]
  kLogprob,  // its logarithm, <= 0, nats
  kPTrue,    // probability of the label, [0, 1]
  kMargin,   // largest minus second largest probability, [0, 1]
  kEntropy,  // of the predicted distribution, >= 0, nats; high is hard
  kLoss,     // cross-entropy against the label, >= 0, nats; high is hard
};

const char* name_of(ScoreKind kind);
/// "logit", "prob", "logprob", "p_true", "margin", "entropy" or "loss"; anything else throws.
ScoreKind parse_score_kind(const std::string& text);
/// False for entropy and loss.
bool high_is_easy(ScoreKind kind);

/// What a classifier said about each of N samples, at temperature 1. Arrays that nobody asks for
/// may stay empty.
struct SampleStatistics {
  std::vector<float> max_logit, max_prob, max_logprob, p_true, margin, entropy, loss;  // (N)
  std::vector<std::uint8_t> correct;                                                   // (N) 0 or 1
};

/// Statistics of logits (N, V) row-major against labels (N).
///
/// Numerics  double; log-probabilities by the shifted log-sum-exp, never log(prob). A class with
///           logit -inf has probability 0. The prediction is the first of equal maxima.
/// Errors    kNumerics for a NaN or +inf logit or a row of -inf, naming the row; kUsage for sizes
///           or labels out of range.
SampleStatistics statistics_of_logits(std::span<const float> logits, std::int64_t classes,
                                      std::span<const std::int32_t> labels);

/// The array of one kind. Throws kUsage if that array is empty while `correct` is not.
std::span<const float> scores_of(const SampleStatistics& statistics, ScoreKind kind);

/// score or -score, so that high is easy.
std::vector<float> easiness_of(ScoreKind kind, std::span<const float> scores);

/// C for the reliance formulas. logit, prob, p_true, margin and logprob as they are; entropy and
/// loss D by
///
///   C_i = 1 - min(D_i, D_q) / D_q,   D_q = quantile q of the finite D that are not excluded
///
/// (all 1 if D_q is 0). excluded is empty or (N): samples that carry a sentinel.
std::vector<float> confidence_of(ScoreKind kind, std::span<const float> scores,
                                 double quantile = 0.99,
                                 std::span<const std::uint8_t> excluded = {});

/// What to do with samples whose score is NaN or infinite.
enum class NanPolicy : std::uint8_t {
  kRefuse,    // throw
  kDrop,      // leave the sample out of the order
  kSentinel,  // replace by a constant
  kQuantile,  // replace by a quantile of the finite scores
};

struct CleanScores {
  std::vector<float> scores;           // (N); finite, but for dropped samples (0)
  std::vector<std::uint8_t> excluded;  // (N) 1 where the score was not finite: not in normalisers
  std::vector<std::int64_t> kept;      // indices that take part in the order, ascending
  std::int64_t bad = 0;                // how many scores were not finite
  std::string warning;                 // empty, or a sentence with the count for the report
};

/// Applies the policy; `value` is the sentinel or the quantile in [0, 1].
/// Errors: kNumerics under kRefuse, naming the first bad sample, or if no score is finite.
CleanScores clean_scores(std::span<const float> scores, NanPolicy policy, double value = 0);

/// Linear interpolation between closest ranks. q in [0, 1]; values must not be empty.
double quantile_of(std::vector<float> values, double q);

}  // namespace retort::curriculum
