#include "distill/metrics/metrics_of_rows.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/common/check.h"

namespace retort::distill {
namespace {

double mean(std::span<const float> values) {
  double sum = 0;
  for (const float value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

double share_of_equals(std::span<const std::int32_t> a, std::span<const std::int32_t> b) {
  std::int64_t equal = 0;
  for (std::size_t i = 0; i < a.size(); ++i) equal += a[i] == b[i];
  return static_cast<double>(equal) / static_cast<double>(a.size());
}

// n(c, c), n(c, .) and n(., c) of every class.
struct ClassCounts {
  std::vector<double> right, targets, predictions;

  explicit ClassCounts(const RowRecords& rows)
      : right(static_cast<std::size_t>(rows.classes)),
        targets(right.size()),
        predictions(right.size()) {
    for (std::size_t i = 0; i < rows.rows(); ++i) {
      const auto y = static_cast<std::size_t>(rows.targets[i]),
                 p = static_cast<std::size_t>(rows.predictions[i]);
      ++targets[y];
      ++predictions[p];
      if (y == p) ++right[y];
    }
  }
};

}  // namespace

double accuracy(const RowRecords& rows) { return share_of_equals(rows.targets, rows.predictions); }

double mean_loss(const RowRecords& rows) { return mean(rows.loss); }

double perplexity(const RowRecords& rows) { return std::exp(mean(rows.loss)); }

double calibration_error(const RowRecords& rows) {
  constexpr std::size_t kBins = 15;
  struct Bin {
    double right = 0, confidence = 0;
  };
  std::array<Bin, kBins> bins;
  for (std::size_t i = 0; i < rows.rows(); ++i) {
    const double confidence = rows.confidence[i];
    const double place = std::ceil(confidence * kBins) - 1;
    Bin& bin = bins[static_cast<std::size_t>(std::clamp(place, 0.0, kBins - 1.0))];
    bin.right += rows.targets[i] == rows.predictions[i];
    bin.confidence += confidence;
  }
  double sum = 0;
  for (const Bin& bin : bins) sum += std::abs(bin.right - bin.confidence);
  return sum / static_cast<double>(rows.rows());
}

double macro_f1(const RowRecords& rows) {
  const ClassCounts n(rows);
  double sum = 0, classes = 0;
  for (std::size_t c = 0; c < n.right.size(); ++c) {
    const double both = n.targets[c] + n.predictions[c];
    if (both == 0) continue;
    sum += 2 * n.right[c] / both;
    ++classes;
  }
  return sum / classes;
}

double balanced_accuracy(const RowRecords& rows) {
  const ClassCounts n(rows);
  double sum = 0, classes = 0;
  for (std::size_t c = 0; c < n.right.size(); ++c) {
    if (n.targets[c] == 0) continue;
    sum += n.right[c] / n.targets[c];
    ++classes;
  }
  return sum / classes;
}

double mcc(const RowRecords& rows) {
  const ClassCounts n(rows);
  const double all = static_cast<double>(rows.rows());
  double right = 0, chance = 0, of_targets = all * all, of_predictions = all * all;
  for (std::size_t c = 0; c < n.right.size(); ++c) {
    right += n.right[c];
    chance += n.targets[c] * n.predictions[c];
    of_targets -= n.targets[c] * n.targets[c];
    of_predictions -= n.predictions[c] * n.predictions[c];
  }
  if (of_targets == 0 || of_predictions == 0) return 0;
  return (all * right - chance) / std::sqrt(of_targets) / std::sqrt(of_predictions);
}

std::optional<double> top5(const RowRecords& rows) {
  if (rows.rank.empty() || rows.classes <= 5) return std::nullopt;
  const auto within =
      std::count_if(rows.rank.begin(), rows.rank.end(), [](std::int32_t r) { return r < 5; });
  return static_cast<double>(within) / static_cast<double>(rows.rows());
}

std::optional<double> teacher_agreement(const RowRecords& rows) {
  if (rows.teacher_predictions.empty()) return std::nullopt;
  return share_of_equals(rows.teacher_predictions, rows.predictions);
}

std::optional<double> mean_kl(const RowRecords& rows) {
  if (rows.kl.empty()) return std::nullopt;
  return std::max(0.0, mean(rows.kl));
}

namespace {

void check(const RowRecords& rows) {
  const auto sized = [&](const char* name, std::size_t size, bool optional) {
    RETORT_CHECK(size == rows.rows() || (optional && size == 0), "[metrics] expected ", rows.rows(),
                 " entries of ", name, ", one a row, got ", size);
  };
  sized("predictions", rows.predictions.size(), false);
  sized("loss", rows.loss.size(), false);
  sized("confidence", rows.confidence.size(), false);
  sized("rank", rows.rank.size(), true);
  sized("teacher_predictions", rows.teacher_predictions.size(), true);
  sized("kl", rows.kl.size(), true);
  for (std::size_t i = 0; i < rows.rows(); ++i)
    for (const std::int32_t c : {rows.targets[i], rows.predictions[i]})
      RETORT_CHECK(c >= 0 && c < rows.classes, "[metrics] expected targets and predictions below ",
                   rows.classes, ", got ", c, " for row ", i);
}

}  // namespace

Metrics metrics_of_rows(const RowRecords& rows) {
  check(rows);
  Metrics metrics;
  if (rows.rows() == 0) return metrics;
  for (const MetricKind* kind : metric_kinds()) {
    if (!kind->of) continue;
    if (const std::optional<double> value = kind->of(rows))
      metrics.emplace_back(kind->name, *value);
  }
  return metrics;
}

}  // namespace retort::distill
