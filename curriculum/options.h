// The keys of [curriculum], and the curriculum that they ask for.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "curriculum/ordering/order_file.h"
#include "curriculum/pacing/pacing.h"
#include "curriculum/scoring/nan_policy.h"

namespace retort::curriculum {

/// Scorers that need no model: a permutation from the seed, a curriculum file.
inline constexpr const char* kScorerRandom = "random";
inline constexpr const char* kScorerFile = "file";
/// The samples themselves, for scores that need no model (ScoreKind::of_data).
inline constexpr const char* kScorerData = "data";

/// Keys without the section: name, scorer, score, inverse, stratify, file, confidence,
/// confidence_quantile, nan, nan_value, pacing,
/// and what the pacing functions read. Rows that registries were given from outside are in it.
/// `models` are the scorers that the caller can provide, the default first.
std::vector<nn::OptionSpec> curriculum_options(const nn::Strings& models = {"teacher"});

/// What complete options, each in range, get wrong together; keys without the section.
std::vector<Mistake> curriculum_mistakes(const nn::Options& options);

/// The pacing of complete options. Errors    those of Pacing.
Pacing pacing_of(const nn::Options& options, std::int64_t total_steps);

/// Everything that training wants to know of a curriculum.
struct Curriculum {
  Order order;
  std::vector<float> scores;           // (N) by sample, after the NaN policy
  std::vector<float> confidence;       // (N) by sample: C of the reliance formulas
  std::vector<std::uint8_t> correct;   // (N), or empty where nobody knows
  std::vector<std::uint8_t> excluded;  // (N) 1: could not be scored; in no normaliser
  std::int64_t unscored = 0;           // how many
  std::string csv;                     // the curriculum file
  std::vector<std::string> warnings;   // sentences for the log and the report
};

/// The curriculum of complete options: scores, NaN policy, order, file. labels (N) or empty; the
/// seed is read by the scorer "random" only.
///
/// Errors    those of scores_of, clean_scores and make_order.
Curriculum make_curriculum(const nn::Options& options, const SampleStatistics& statistics,
                           std::span<const std::int32_t> labels, std::uint64_t seed);

/// The same from a file, read with the number of samples. A file with ranks is fed as it stands
/// (curriculum.score says what its scores are; `stratify` is not read); from scores alone an order
/// is made. Samples that the file leaves out are ones that cannot be scored.
///
/// Errors    also kUsage for an inverse, a sentinel or a quantile asked of a file with ranks;
///           kBadInput if its labels are not those of the samples.
Curriculum make_curriculum(const nn::Options& options, const OrderFile& file,
                           std::span<const std::int32_t> labels);

}  // namespace retort::curriculum
