// The oracle of distill::measure(): the same numbers in double, row by row on the host.
#pragma once
#include <cstdint>
#include <vector>

#include "engine/tensor/tensor.h"

namespace retort::test {

struct EvaluationResult {
  std::int64_t samples = 0;
  double accuracy = 0;
  double loss = 0;               // cross-entropy, nats per sample
  double calibration_error = 0;  // ECE, see EvaluationMeter
  // With a teacher; 0 without.
  double teacher_accuracy = 0, teacher_loss = 0;
  double agreement = 0;  // share of samples with the same prediction
  double mean_kl = 0;    // KL(teacher || student) at temperature 1, nats per sample
};

/// Gathers batches on the host, in double, in the order in which they come.
///
///   ECE = sum over bins b of (n_b / n) |accuracy_b - confidence_b|
///
/// with `bins` equal bins of the largest probability, (k/bins, (k+1)/bins]. The prediction is the
/// first of equal maxima. KL counts 0 where the teacher's probability is 0.
///
/// Errors    kNumerics for NaN logits; kUsage for shapes, dtypes and labels; nothing is added then.
/// Source    ECE: Guo et al. 2017, arXiv:1706.04599, section 2.
class EvaluationMeter {
 public:
  explicit EvaluationMeter(int bins = 15);
  /// logits (N, V); targets i32 (N); teacher_logits (N, V) or undefined, as in all other calls.
  void add(const Tensor& logits, const Tensor& targets, const Tensor& teacher_logits = {});
  EvaluationResult result() const;

 private:
  void gather(const Tensor& logits, const Tensor& targets, const Tensor& teacher_logits);

  struct Bin {
    std::int64_t count = 0, correct = 0;
    double confidence = 0;
  };
  std::vector<Bin> bins_;
  std::int64_t samples_ = 0, correct_ = 0, teacher_correct_ = 0, agree_ = 0;
  double loss_ = 0, teacher_loss_ = 0, kl_ = 0;
  int has_teacher_ = -1;
};

/// Share of rows whose largest logit (the first of equals) is the target's; no other figure, so it
/// is cheap. logits (N, V), targets i32 (N); 0 for N = 0. NaN is never right.
double accuracy_of(const Tensor& logits, const Tensor& targets);

}  // namespace retort::test
