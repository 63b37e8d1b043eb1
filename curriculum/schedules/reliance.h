// Selective reliance: how much of the loss comes from the teacher, batch by batch.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "curriculum/names.h"
#include "curriculum/scoring/score.h"

namespace retort::curriculum {

enum class RelianceMode : std::uint8_t {
  kOff,  // one lambda throughout
  kMinmax,
  kRank,
  kLiteral
};
const char* name_of(RelianceMode mode);
/// Errors    kUsage that lists the names.
RelianceMode parse_reliance_mode(const std::string& text);

/// Which batch has lambda 0 in the literal mode.
enum class RelianceOffset : std::uint8_t {
  kFirstBatch,     // the papers': the batch fed first, easy or not
  kGlobalEasiest,  // the batch of the largest mean confidence, wherever it is fed
};
const char* name_of(RelianceOffset offset);
/// Errors    kUsage that lists the names.
RelianceOffset parse_reliance_offset(const std::string& text);

struct RelianceOptions {
  RelianceMode mode = RelianceMode::kMinmax;
  double constant = 0.5;                                   // lambda of kOff
  RelianceOffset offset = RelianceOffset::kGlobalEasiest;  // kLiteral only
  bool clamp = true;                                       // to [0, 1]
  bool per_sample = false;                                 // every sample is its own batch
  bool drop_last = false;  // the feeding leaves out an incomplete last batch
};

/// Lambda as a function of a batch's mean confidence, fitted once before training. C is a
/// confidence by sample (high is easy; curriculum::confidence_of), C_b its mean over the samples of
/// batch b that are not excluded, b = 0 .. N_b-1 the consecutive batches of the fed order.
///
///   literal  lambda_b = (1 - C_b) / max_i C_i - s,   s = (1 - C_ref) / max_i C_i
///            C_ref = C_0 (first_batch) or max_b C_b (global_easiest)
///   minmax   lambda_b = (max_b C_b - C_b) / (max_b C_b - min_b C_b)
///   rank     lambda_b = r_b / (N_b - 1),   r_b = number of batches with larger mean
///   off      lambda_b = the constant
///
/// With per_sample, read "sample" for "batch". max_i C_i is over all samples, misclassified too.
/// The 1 of the literal formula cancels, so it is (C_ref - C_b) / max C; with an inverse curriculum
/// and first_batch it is negative throughout. Only `clamp` bounds it.
///
/// Units     lambda without unit.
/// Masking   excluded samples count in no mean, maximum or minimum; a batch of nothing else is
///           treated as one with the largest mean.
/// Numerics  double. Equal means (max = min) give lambda 0 and a warning.
/// Errors    kNumerics for a NaN or infinite confidence that is not excluded; kUsage for sizes, or
///           max C <= 0 in the literal mode (log-probabilities, say), naming the value.
/// Source    literal: the selective-reliance papers of 2022 and 2023; minmax and rank are ours.
class Reliance {
 public:
  Reliance() = default;  // constant 0.5
  Reliance(std::span<const float> confidence, std::span<const std::int64_t> order,
           std::int64_t batch_size, const RelianceOptions& options,
           std::span<const std::uint8_t> excluded = {});

  /// Lambda of every batch (or every rank, with per_sample) of the fed order.
  const std::vector<float>& planned() const { return planned_; }
  /// Lambda of any batch, also one drawn by pacing or shuffled in a window. Clamped if asked for.
  double of_batch(std::span<const std::int64_t> samples) const;
  /// Lambda of each of these samples: with per_sample its own, else that of the batch repeated.
  std::vector<float> of_samples(std::span<const std::int64_t> samples) const;

  /// Share of these samples' lambdas that the clamp changes: 0 or 1 but with per_sample.
  double clamped(std::span<const std::int64_t> samples) const;

  const RelianceOptions& options() const { return options_; }
  double offset() const { return s_; }                   // s
  double max_confidence() const { return max_sample_; }  // max_i C_i
  /// Share of planned() that the clamp changed; 0 without clamp.
  double fraction_clamped() const { return fraction_clamped_; }
  /// All means were equal, so lambda is 0 everywhere: selective reliance equals no teacher.
  bool degenerate() const { return degenerate_; }
  /// Sentences for the log and the report; empty when all is well.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  double raw(double mean) const;  // before the clamp
  double mean_of(std::span<const std::int64_t> samples) const;
  double raw_of(std::span<const std::int64_t> samples) const;
  double bounded(double lambda) const;

  RelianceOptions options_{.mode = RelianceMode::kOff};
  std::vector<float> confidence_;       // by sample
  std::vector<std::uint8_t> excluded_;  // by sample, or empty
  std::vector<double> means_;           // of planned batches, ascending
  std::vector<float> planned_;
  std::vector<std::string> warnings_;
  double max_sample_ = 0, max_mean_ = 0, min_mean_ = 0, s_ = 0, fraction_clamped_ = 0;
  bool degenerate_ = false;
};

/// The keys of [distill.reliance]: mode, s, clamp, per.
std::vector<nn::OptionSpec> reliance_options();
/// What complete options ask for; lambda of kOff and drop_last are the caller's.
RelianceOptions reliance_of(const nn::Options& options);
/// Why these options cannot work with this kind of score.
Mistake reliance_mistake(const nn::Options& options, const ScoreKind& score);

}  // namespace retort::curriculum
