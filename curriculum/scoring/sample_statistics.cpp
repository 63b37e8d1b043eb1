#include "curriculum/scoring/sample_statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/common/check.h"

namespace retort::curriculum {
namespace {

constexpr float kNothing = std::numeric_limits<float>::quiet_NaN();

// Means over the rows of each sample, of one array or of a function of one.
class Means {
 public:
  Means(const RowStatistics& rows, std::size_t count, std::int64_t samples)
      : rows_(rows), count_(count), of_sample_(static_cast<std::size_t>(samples)) {
    RETORT_CHECK(rows.counts.empty() || rows.counts.size() == count, "[score] expected ", count,
                 " counting flags, got ", rows.counts.size());
    RETORT_CHECK(rows.sample_of_row.empty() ? count == of_sample_.size()
                                            : rows.sample_of_row.size() == count,
                 "[score] expected the sample of each of ", count, " rows, got ",
                 rows.sample_of_row.empty() ? of_sample_.size() : rows.sample_of_row.size());
    for (std::size_t i = 0; i < count; ++i) {
      if (!counted(i)) continue;
      RETORT_CHECK(sample(i) < of_sample_.size(), "[score] expected samples below ",
                   of_sample_.size(), ", got ", rows.sample_of_row[i], " for row ", i);
      of_sample_[sample(i)] += 1;
    }
  }

  template <class T, class Function>
  std::vector<double> of(const char* what, std::span<const T> values, Function&& function) const {
    if (values.empty() && count_ > 0) return {};
    RETORT_CHECK(values.size() == count_, "[score] expected ", what, " of ", count_, " rows, got ",
                 values.size());
    std::vector<double> mean(of_sample_.size());
    for (std::size_t i = 0; i < count_; ++i)
      if (counted(i)) mean[sample(i)] += function(static_cast<double>(values[i]));
    for (std::size_t s = 0; s < mean.size(); ++s) mean[s] /= of_sample_[s];  // 0 / 0: NaN
    return mean;
  }

  template <class Function>
  std::vector<float> floats(const char* what, std::span<const float> values,
                            Function&& function) const {
    const std::vector<double> mean = of(what, values, function);
    std::vector<float> rounded(mean.size());
    for (std::size_t s = 0; s < mean.size(); ++s)
      rounded[s] = of_sample_[s] > 0 ? static_cast<float>(mean[s]) : kNothing;
    return rounded;
  }

  std::vector<std::uint8_t> scored() const {
    std::vector<std::uint8_t> flags;
    for (const double n : of_sample_) flags.push_back(n > 0);
    return flags;
  }

 private:
  bool counted(std::size_t i) const { return rows_.counts.empty() || rows_.counts[i] != 0; }
  // A negative number becomes one that no array reaches.
  std::size_t sample(std::size_t i) const {
    return rows_.sample_of_row.empty() ? i : static_cast<std::size_t>(rows_.sample_of_row[i]);
  }

  const RowStatistics& rows_;
  std::size_t count_;
  std::vector<double> of_sample_;  // rows of each sample
};

}  // namespace

std::size_t SampleStatistics::size() const {
  std::size_t size =
      std::max({max_logit.size(), max_prob.size(), max_logprob.size(), p_true.size(), margin.size(),
                entropy.size(), loss.size(), correct.size(), scored.size()});
  for (const auto& [name, values] : of_data) size = std::max(size, values.size());
  return size;
}

SampleStatistics mean_of(std::span<const SampleStatistics> all) {
  RETORT_CHECK(!all.empty(), "[score] expected at least one measurement");
  if (all.size() == 1) return all[0];
  const std::size_t n = all[0].size();
  // How often sample i could be scored.
  const auto counts = [&](const SampleStatistics& one, std::size_t i) {
    return one.scored.empty() || one.scored[i] != 0;
  };
  std::vector<int> times(n);
  for (const SampleStatistics& one : all)
    for (std::size_t i = 0; i < n; ++i) times[i] += counts(one, i);
  const auto mean = [&](std::vector<float> SampleStatistics::*array) {
    if ((all[0].*array).empty()) return std::vector<float>();
    std::vector<double> sum(n);
    for (const SampleStatistics& one : all) {
      RETORT_CHECK((one.*array).size() == n, "[score] expected measurements of ", n,
                   " samples, got ", (one.*array).size());
      for (std::size_t i = 0; i < n; ++i)
        if (counts(one, i)) sum[i] += static_cast<double>((one.*array)[i]);
    }
    std::vector<float> means(n, kNothing);
    for (std::size_t i = 0; i < n; ++i)
      if (times[i] > 0) means[i] = static_cast<float>(sum[i] / times[i]);
    return means;
  };
  SampleStatistics result;
  for (const auto array :
       {&SampleStatistics::max_logit, &SampleStatistics::max_prob, &SampleStatistics::max_logprob,
        &SampleStatistics::p_true, &SampleStatistics::margin, &SampleStatistics::entropy,
        &SampleStatistics::loss})
    result.*array = mean(array);
  result.of_data = all[0].of_data;
  if (!all[0].correct.empty())
    for (std::size_t i = 0; i < n; ++i) {
      int right = 0;
      for (const SampleStatistics& one : all) right += counts(one, i) && one.correct[i] != 0;
      result.correct.push_back(2 * right > times[i]);
    }
  if (std::any_of(times.begin(), times.end(), [](int t) { return t == 0; }))
    for (const int t : times) result.scored.push_back(t > 0);
  return result;
}

SampleStatistics statistics_of_rows(const RowStatistics& rows, std::int64_t samples) {
  RETORT_CHECK(samples >= 0, "[score] expected a number of samples, got ", samples);
  const std::size_t count =
      std::max({rows.max_logit.size(), rows.log_confidence.size(), rows.margin.size(),
                rows.entropy.size(), rows.log_p_true.size(), rows.correct.size()});
  const Means means(rows, count, samples);
  const auto same = [](double x) { return x; };
  const auto exponential = [](double x) { return std::exp(x); };
  SampleStatistics s;
  s.max_logit = means.floats("the largest logit", rows.max_logit, same);
  s.max_logprob = means.floats("the log-confidence", rows.log_confidence, same);
  s.max_prob = rows.confidence.empty()
                   ? means.floats("the log-confidence", rows.log_confidence, exponential)
                   : means.floats("the confidence", rows.confidence, same);
  s.margin = means.floats("the margin", rows.margin, same);
  s.entropy = means.floats("the entropy", rows.entropy, same);
  s.loss =
      means.floats("the label's log-probability", rows.log_p_true, [](double x) { return -x; });
  s.p_true = rows.p_true.empty()
                 ? means.floats("the label's log-probability", rows.log_p_true, exponential)
                 : means.floats("the label's probability", rows.p_true, same);
  for (const double share : means.of("correctness", rows.correct, same))
    s.correct.push_back(share > 0.5);
  s.scored = means.scored();
  return s;
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

}  // namespace retort::curriculum
