// What a model says about each sample: the input of every score.
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace retort::curriculum {

/// What a model said about each of N samples, at temperature 1. A sample of several rows of logits
/// (the masked tokens of a text) has the means over its rows.
///
/// Arrays that nobody measured are empty: without labels p_true, loss and correct. What a model
/// could not say of a sample is NaN, and the NaN policy decides what becomes of it.
struct SampleStatistics {
  std::vector<float> max_logit;       // (N)
  std::vector<float> max_prob;        // (N) (0, 1]
  std::vector<float> max_logprob;     // (N) nats
  std::vector<float> p_true;          // (N) [0, 1]
  std::vector<float> margin;          // (N) largest minus second largest probability
  std::vector<float> entropy;         // (N) nats
  std::vector<float> loss;            // (N) cross-entropy, nats
  std::vector<std::uint8_t> correct;  // (N) 1: right on more than half of the rows
  std::vector<std::uint8_t> scored;   // (N) 0: no row to judge it by; or empty: all have one
  /// (N) each, by the name of the score: what the data says of its samples, no model asked.
  std::map<std::string, std::vector<float>> of_data = {};

  /// N: the size of the longest array.
  std::size_t size() const;
};

/// What one pass measured of R rows of logits: the rows of the loss kernel's statistics.
struct RowStatistics {
  std::span<const float> max_logit, log_confidence, margin, entropy;  // (R) or empty
  std::span<const float> log_p_true = {};      // (R), or empty without labels
  std::span<const std::uint8_t> correct = {};  // (R), or empty without labels
  std::span<const float> confidence = {};      // (R); empty: exp(log_confidence)
  std::span<const float> p_true = {};          // (R); empty: exp(log_p_true)
  std::span<const std::uint8_t> counts = {};   // (R) 0: masked, not to be read; or empty: all do
  std::span<const std::int32_t> sample_of_row = {};  // (R) in [0, N); empty: R = N, the identity
};

/// Means over the rows of each sample.
///
///   x_s = 1/n_s sum_{i : sample_of_row(i) = s, counts} x_i,   n_s the number of such rows
///   max_prob_s and p_true_s are means of probabilities, not exp of a mean; loss_s = -log_p_true_s
///
/// Masking   rows that do not count are not read. A sample with n_s = 0: NaN, correct 0, scored 0.
/// Numerics  double, in the order of the rows; one row gives its own numbers, unrounded.
/// Errors    kUsage for arrays of different sizes or a sample outside [0, N).
SampleStatistics statistics_of_rows(const RowStatistics& rows, std::int64_t samples);

/// Means over several measurements of the same N samples: a text under several maskings, say. A
/// sample counts where it could be scored; correct: in more than half of them.
///
/// Errors    kUsage for none, or for measurements of different arrays.
SampleStatistics mean_of(std::span<const SampleStatistics> all);

/// The definition that statistics measured on a device are tested against: statistics of logits
/// (N, V) row-major against labels (N), one row a sample.
///
/// Numerics  double; log-probabilities by the shifted log-sum-exp, never log(prob). A class with
///           logit -inf has probability 0. The prediction is the first of equal maxima.
/// Errors    kNumerics for a NaN or +inf logit or a row of -inf, naming the row; kUsage for sizes
///           or labels out of range.
SampleStatistics statistics_of_logits(std::span<const float> logits, std::int64_t classes,
                                      std::span<const std::int32_t> labels);

}  // namespace retort::curriculum
