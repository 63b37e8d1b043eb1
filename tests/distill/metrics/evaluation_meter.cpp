#include "tests/distill/metrics/evaluation_meter.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace retort::test {
namespace {

struct Row {
  const double* z;
  std::size_t top = 0;
  double log_sum = 0;  // of the exponentials of z - max, plus max

  Row(const double* logits, std::size_t width, std::int64_t index) : z(logits) {
    for (std::size_t c = 0; c < width; ++c) {
      RETORT_CHECK_AS(kNumerics, !std::isnan(z[c]), "[evaluation] logits of row ", index,
                      " are NaN");
      if (z[c] > z[top]) top = c;
    }
    RETORT_CHECK_AS(kNumerics, std::isfinite(z[top]), "[evaluation] the largest logit of row ",
                    index, " is ", z[top]);
    double sum = 0;
    for (std::size_t c = 0; c < width; ++c) sum += std::exp(z[c] - z[top]);
    log_sum = std::log(sum) + z[top];
  }
  double log_prob(std::size_t c) const { return z[c] - log_sum; }
};

void check(const Tensor& logits, const Tensor& targets) {
  RETORT_CHECK(logits.rank() == 2 && targets.rank() == 1 && targets.dim(0) == logits.dim(0) &&
                   targets.dtype() == DType::kI32,
               "[evaluation] expected logits (N, V) and targets (N) of i32, got ", logits.shape(),
               " and ", targets.shape(), " of ", name_of(targets.dtype()));
}

}  // namespace

EvaluationMeter::EvaluationMeter(int bins) {
  RETORT_CHECK(bins >= 1, "[evaluation] expected at least 1 bin, got ", bins);
  bins_.resize(static_cast<std::size_t>(bins));
}

void EvaluationMeter::add(const Tensor& logits, const Tensor& targets,
                          const Tensor& teacher_logits) {
  EvaluationMeter sums = *this;  // kept only if every row is sound
  sums.gather(logits, targets, teacher_logits);
  *this = std::move(sums);
}

void EvaluationMeter::gather(const Tensor& logits, const Tensor& targets,
                             const Tensor& teacher_logits) {
  check(logits, targets);
  RETORT_CHECK(has_teacher_ < 0 || has_teacher_ == static_cast<int>(teacher_logits.defined()),
               "[evaluation] expected teacher logits in all calls or in none");
  has_teacher_ = static_cast<int>(teacher_logits.defined());
  RETORT_CHECK(!has_teacher_ || teacher_logits.shape() == logits.shape(),
               "[evaluation] expected teacher logits ", logits.shape(), ", got ",
               teacher_logits.defined() ? teacher_logits.shape() : Shape{});
  const std::vector<double> z = logits.to_vector<double>();
  const std::vector<double> t =
      has_teacher_ ? teacher_logits.to_vector<double>() : std::vector<double>();
  const std::vector<std::int32_t> labels = targets.to_vector<std::int32_t>();
  const auto width = static_cast<std::size_t>(logits.dim(1));
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const std::int64_t index = samples_ + static_cast<std::int64_t>(i);
    RETORT_CHECK(labels[i] >= 0 && labels[i] < logits.dim(1), "[evaluation] expected labels below ",
                 width, ", got ", labels[i], " for row ", index);
    const auto label = static_cast<std::size_t>(labels[i]);
    const Row s(&z[i * width], width, index);
    const bool right = s.top == label;
    correct_ += right;
    loss_ -= s.log_prob(label);
    const double confidence = std::exp(s.log_prob(s.top));
    const double place = std::ceil(confidence * static_cast<double>(bins_.size())) - 1;
    Bin& bin = bins_[static_cast<std::size_t>(
        std::clamp(place, 0.0, static_cast<double>(bins_.size() - 1)))];
    ++bin.count;
    bin.correct += right;
    bin.confidence += confidence;
    if (!has_teacher_) continue;
    const Row teacher(&t[i * width], width, index);
    teacher_correct_ += teacher.top == label;
    teacher_loss_ -= teacher.log_prob(label);
    agree_ += teacher.top == s.top;
    for (std::size_t c = 0; c < width; ++c) {
      const double p = std::exp(teacher.log_prob(c));
      if (p > 0) kl_ += p * (teacher.log_prob(c) - s.log_prob(c));
    }
  }
  samples_ += static_cast<std::int64_t>(labels.size());
}

EvaluationResult EvaluationMeter::result() const {
  EvaluationResult r;
  r.samples = samples_;
  if (samples_ == 0) return r;
  const double n = static_cast<double>(samples_);
  r.accuracy = static_cast<double>(correct_) / n;
  r.loss = loss_ / n;
  for (const Bin& bin : bins_)
    r.calibration_error += std::abs(static_cast<double>(bin.correct) - bin.confidence) / n;
  r.teacher_accuracy = static_cast<double>(teacher_correct_) / n;
  r.teacher_loss = teacher_loss_ / n;
  r.agreement = static_cast<double>(agree_) / n;
  r.mean_kl = std::max(0.0, kl_ / n);
  return r;
}

double accuracy_of(const Tensor& logits, const Tensor& targets) {
  check(logits, targets);
  const std::vector<float> z = logits.to_vector<float>();
  const std::vector<std::int32_t> labels = targets.to_vector<std::int32_t>();
  const auto width = static_cast<std::size_t>(logits.dim(1));
  std::int64_t right = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    RETORT_CHECK(labels[i] >= 0 && labels[i] < logits.dim(1), "[evaluation] expected labels below ",
                 width, ", got ", labels[i], " for row ", i);
    const float* const row = &z[i * width];
    const float at_label = row[labels[i]];
    bool best = true;
    for (std::size_t c = 0; c < width; ++c)
      best = best &&
             (c < static_cast<std::size_t>(labels[i]) ? at_label > row[c] : at_label >= row[c]);
    right += best;
  }
  return labels.empty() ? 0 : static_cast<double>(right) / static_cast<double>(labels.size());
}

}  // namespace retort::test
