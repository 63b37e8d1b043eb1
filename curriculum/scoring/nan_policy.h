// What becomes of samples that cannot be scored: the one place that decides it.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "curriculum/names.h"

namespace retort::curriculum {

enum class NanRule : std::uint8_t {
  kRefuse,    // throw
  kDrop,      // leave the sample out of the order
  kSentinel,  // replace its score by a constant
  kQuantile,  // replace its score by a quantile of the finite scores
};
const char* name_of(NanRule rule);
/// Errors    kUsage that lists the names.
NanRule parse_nan_rule(const std::string& text);

struct NanPolicy {
  NanRule rule = NanRule::kRefuse;
  double value = 1;  // the sentinel, in the units of the score, or the quantile in [0, 1]
};

/// The keys nan and nan_value of [curriculum].
std::vector<nn::OptionSpec> nan_options();
/// The policy that complete options ask for, and what is wrong with it.
NanPolicy nan_policy_of(const nn::Options& options);
Mistake nan_mistake(const nn::Options& options);

/// Scores that orders and normalisers can take.
struct CleanScores {
  std::vector<float> scores;           // (N); finite, but for dropped samples (0)
  std::vector<std::uint8_t> excluded;  // (N) 1 where the score was not finite: not in normalisers
  std::vector<std::int64_t> kept;      // indices that take part in the order, ascending
  std::int64_t bad = 0;                // how many could not be scored
  std::string warning;                 // empty, or a sentence with the count for the report
};

/// Applies the policy to scores that are NaN or infinite and, where `scored` is given (N), to
/// samples whose flag is 0, whatever their score.
///
/// Errors    kNumerics under kRefuse, naming the first such sample, or if no score is finite;
///           kUsage for sizes or a quantile outside [0, 1].
CleanScores clean_scores(std::span<const float> scores, const NanPolicy& policy,
                         std::span<const std::uint8_t> scored = {});

}  // namespace retort::curriculum
