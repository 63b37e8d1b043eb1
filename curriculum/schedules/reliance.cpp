#include "curriculum/schedules/reliance.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/check.h"

namespace retort::curriculum {

namespace {

constexpr double kHardly = 0.05;  // a weight of the teacher that changes little

constexpr Named<RelianceMode> kModes[] = {{RelianceMode::kOff, "off"},
                                          {RelianceMode::kMinmax, "minmax"},
                                          {RelianceMode::kRank, "rank"},
                                          {RelianceMode::kLiteral, "literal"}};
constexpr Named<RelianceOffset> kOffsets[] = {{RelianceOffset::kFirstBatch, "first_batch"},
                                              {RelianceOffset::kGlobalEasiest, "global_easiest"}};
// Whether every sample is its own batch.
constexpr Named<bool> kParts[] = {{false, "batch"}, {true, "sample"}};

}  // namespace

const char* name_of(RelianceMode mode) { return name_in(kModes, mode); }
RelianceMode parse_reliance_mode(const std::string& text) {
  return parse_in(kModes, "reliance", text);
}
const char* name_of(RelianceOffset offset) { return name_in(kOffsets, offset); }
RelianceOffset parse_reliance_offset(const std::string& text) {
  return parse_in(kOffsets, "reliance", text);
}

std::vector<nn::OptionSpec> reliance_options() {
  const RelianceOptions standard;
  return {
      nn::choice_option("mode", name_of(RelianceMode::kOff), joined(names_in(kModes), "|"),
                        "Selective reliance: lambda of a batch from the teacher's scores; off: "
                        "distill.lambda."),
      nn::choice_option("s", name_of(standard.offset), joined(names_in(kOffsets), "|"),
                        "literal: batch whose lambda is 0."),
      nn::flag_option("clamp", standard.clamp, "Clamp lambda to [0, 1]."),
      nn::choice_option("per", name_in(kParts, standard.per_sample), joined(names_in(kParts), "|"),
                        "One lambda for a batch, or one for each sample.")};
}

RelianceOptions reliance_of(const nn::Options& options) {
  RelianceOptions reliance;
  reliance.mode = parse_reliance_mode(options.text("mode"));
  reliance.offset = parse_reliance_offset(options.text("s"));
  reliance.clamp = options.flag("clamp");
  reliance.per_sample = parse_in(kParts, "reliance", options.text("per"));
  return reliance;
}

Mistake reliance_mistake(const nn::Options& options, const ScoreKind& score) {
  if (!score.never_positive || parse_reliance_mode(options.text("mode")) != RelianceMode::kLiteral)
    return {};
  return {"mode", join("literal divides by the largest score, and no ", score.name(),
                       " is above 0: use minmax or rank, or another curriculum.score")};
}

Reliance::Reliance(std::span<const float> confidence, std::span<const std::int64_t> order,
                   std::int64_t batch_size, const RelianceOptions& options,
                   std::span<const std::uint8_t> excluded)
    : options_(options),
      confidence_(confidence.begin(), confidence.end()),
      excluded_(excluded.begin(), excluded.end()) {
  RETORT_CHECK(batch_size >= 1, "[reliance] expected a batch of at least 1 sample, got ",
               batch_size);
  RETORT_CHECK(std::isfinite(options.constant), "[reliance] expected a finite lambda, got ",
               options.constant);
  RETORT_CHECK(excluded.empty() || excluded.size() == confidence.size(), "[reliance] expected ",
               confidence.size(), " exclusion flags, got ", excluded.size());
  const std::size_t step = options.per_sample ? 1 : static_cast<std::size_t>(batch_size);
  std::vector<double> means;  // in fed order; NaN for a batch of excluded samples only
  bool any = false;
  for (const std::int64_t i : order) {
    RETORT_CHECK(i >= 0 && static_cast<std::size_t>(i) < confidence_.size(),
                 "[reliance] expected sample indices below ", confidence_.size(), ", got ", i);
    const auto k = static_cast<std::size_t>(i);
    if (!excluded_.empty() && excluded_[k]) continue;
    const double c = static_cast<double>(confidence_[k]);
    RETORT_CHECK_AS(kNumerics, options.mode == RelianceMode::kOff || std::isfinite(c),
                    "[reliance] expected finite confidences, got ", c, " for sample ", i);
    max_sample_ = any ? std::max(max_sample_, c) : c;
    any = true;
  }
  for (std::size_t begin = 0; begin < order.size(); begin += step) {
    const std::size_t count = std::min(step, order.size() - begin);
    if (options.drop_last && count < step) break;
    means.push_back(mean_of(order.subspan(begin, count)));
  }
  for (const double mean : means)
    if (!std::isnan(mean)) means_.push_back(mean);
  std::sort(means_.begin(), means_.end());
  if (!means_.empty()) {
    min_mean_ = means_.front();
    max_mean_ = means_.back();
  }
  degenerate_ = options.mode != RelianceMode::kOff && !means.empty() && !(max_mean_ > min_mean_);
  if (options.mode == RelianceMode::kLiteral && !means_.empty()) {
    RETORT_CHECK(max_sample_ > 0,
                 "[reliance] the literal mode divides by the largest confidence and expected it "
                 "positive, got ",
                 max_sample_, ": use minmax or rank for such scores");
    const double reference =
        options.offset == RelianceOffset::kGlobalEasiest || std::isnan(means[0]) ? max_mean_
                                                                                 : means[0];
    s_ = (1 - reference) / max_sample_;
  }
  std::int64_t clamped = 0;
  std::size_t idle = 0;  // where the teacher hardly counts, or lambda is not what was asked for
  for (const double mean : means) {
    const double value = raw(mean);
    if (bounded(value) != value) ++clamped;
    if (bounded(value) != value || std::abs(value) < kHardly) ++idle;
    planned_.push_back(static_cast<float>(bounded(value)));
  }
  if (!planned_.empty())
    fraction_clamped_ = static_cast<double>(clamped) / static_cast<double>(planned_.size());
  if (degenerate_)
    warnings_.push_back(join("all ", means.size(), options.per_sample ? " samples" : " batches",
                             " have the same mean confidence, so lambda is 0 everywhere and the "
                             "student does not see the teacher"));
  std::string hardly;
  if (!degenerate_ && options.mode != RelianceMode::kOff && idle > 0 && 2 * idle >= planned_.size())
    hardly = join("selective reliance hardly acts: lambda is below ", kHardly, " or clamped in ",
                  idle, " of ", planned_.size(), options.per_sample ? " samples" : " batches");
  if (!hardly.empty() && clamped == 0) warnings_.push_back(hardly);
  if (clamped > 0)
    warnings_.push_back(join(hardly.empty() ? "" : hardly + "; ",
                             "lambda was clamped to [0, 1] for ", clamped, " of ", planned_.size(),
                             options.per_sample ? " samples" : " batches"));
}

double Reliance::mean_of(std::span<const std::int64_t> samples) const {
  double sum = 0;
  std::int64_t count = 0;
  for (const std::int64_t i : samples) {
    const auto k = static_cast<std::size_t>(i);
    RETORT_CHECK(i >= 0 && k < confidence_.size(), "[reliance] expected sample indices below ",
                 confidence_.size(), ", got ", i);
    if (!excluded_.empty() && excluded_[k]) continue;
    sum += static_cast<double>(confidence_[k]);
    ++count;
  }
  return count == 0 ? std::nan("") : sum / static_cast<double>(count);
}

double Reliance::raw(double mean) const {
  if (options_.mode == RelianceMode::kOff) return options_.constant;
  if (degenerate_ || means_.empty()) return 0;
  if (std::isnan(mean)) mean = max_mean_;
  switch (options_.mode) {
    case RelianceMode::kLiteral: return (1 - mean) / max_sample_ - s_;
    case RelianceMode::kMinmax: return (max_mean_ - mean) / (max_mean_ - min_mean_);
    default: break;
  }
  const auto larger = means_.end() - std::upper_bound(means_.begin(), means_.end(), mean);
  return static_cast<double>(larger) / static_cast<double>(means_.size() - 1);
}

double Reliance::raw_of(std::span<const std::int64_t> samples) const {
  return options_.mode == RelianceMode::kOff ? raw(0) : raw(mean_of(samples));
}

double Reliance::bounded(double lambda) const {
  return options_.clamp ? std::clamp(lambda, 0.0, 1.0) : lambda;
}

double Reliance::of_batch(std::span<const std::int64_t> samples) const {
  return bounded(raw_of(samples));
}

double Reliance::clamped(std::span<const std::int64_t> samples) const {
  const std::size_t step = options_.per_sample ? 1 : samples.size();
  double changed = 0, all = 0;
  for (std::size_t begin = 0; begin < samples.size(); begin += step, ++all) {
    const double value = raw_of(samples.subspan(begin, step));
    changed += bounded(value) != value;
  }
  return all == 0 ? 0 : changed / all;
}

std::vector<float> Reliance::of_samples(std::span<const std::int64_t> samples) const {
  if (!options_.per_sample)
    return std::vector<float>(samples.size(), static_cast<float>(of_batch(samples)));
  std::vector<float> lambda;
  lambda.reserve(samples.size());
  for (const std::int64_t& i : samples) lambda.push_back(static_cast<float>(of_batch({&i, 1})));
  return lambda;
}

}  // namespace retort::curriculum
