#include "bench/harness/verdict.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "bench/harness/distributions.h"
#include "distill/metrics/students_t.h"

namespace retort::bench {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kLeastVariance = 1e-8;      // 0.01 %: no machine repeats itself better
constexpr std::size_t kLeastForSpread = 10;  // cases from which their variances are pooled
constexpr double kMostPriorDegrees = 1e6;

// One case, in logarithms.
struct Estimate {
  double difference = 0, variance = 0, degrees = 0;  // of the blocks around their side's mean
  double unit = 0;                                   // standard error = unit * deviation
};

struct Side {
  double mean = 0, squares = 0;  // squares: of the distances from it
};
Side side_of(const Blocks& blocks) {
  Side s;
  std::vector<double> logs;
  for (const Block& block : blocks) logs.push_back(std::log(median(block)));
  for (const double v : logs) s.mean += v / static_cast<double>(logs.size());
  for (const double v : logs) s.squares += (v - s.mean) * (v - s.mean);
  return s;
}

Estimate estimate_of(const Blocks& before, const Blocks& after) {
  const Side a = side_of(before), b = side_of(after);
  const double na = static_cast<double>(before.size()), nb = static_cast<double>(after.size());
  Estimate e;
  e.difference = b.mean - a.mean;
  e.degrees = na + nb - 2;
  if (e.degrees > 0) e.variance = std::max(kLeastVariance, (a.squares + b.squares) / e.degrees);
  e.unit = std::sqrt(1 / na + 1 / nb);
  return e;
}

// What all cases say about a variance, worth so many degrees of freedom of its own.
struct Prior {
  double variance = 0, degrees = 0;
  double usual = 0;  // median of all variances
};
// By the mean and the variance of log variances (Smyth 2004, section 6.2).
Prior prior_of(const std::vector<Estimate>& all) {
  if (all.size() < kLeastForSpread) return {};
  const double n = static_cast<double>(all.size());
  std::vector<double> logs, variances;
  double mean = 0, own = 0, spread = 0, variance = 0;
  for (const Estimate& e : all) {
    logs.push_back(std::log(e.variance) - digamma(e.degrees / 2) + std::log(e.degrees / 2));
    mean += logs.back() / n;
    own += trigamma(e.degrees / 2) / n;
    variance += e.variance / n;
    variances.push_back(e.variance);
  }
  const double usual = median(variances);
  for (const double v : logs) spread += (v - mean) * (v - mean) / (n - 1);
  // Variances that differ by no more than chance are one.
  if (!(spread > own)) return {variance, kMostPriorDegrees, usual};
  const double half = trigamma_inverse(spread - own);
  return {std::exp(mean + digamma(half) - std::log(half)), std::min(2 * half, kMostPriorDegrees),
          usual};
}

// Benjamini and Hochberg: those of the values that may be called discoveries.
std::vector<bool> discoveries(const std::vector<double>& p) {
  std::vector<double> sorted = p;
  std::sort(sorted.begin(), sorted.end());
  double most = -1;
  for (std::size_t i = 0; i < sorted.size(); ++i)
    if (sorted[i] <=
        kFalseDiscovery * static_cast<double>(i + 1) / static_cast<double>(sorted.size()))
      most = sorted[i];
  std::vector<bool> found;
  for (const double v : p) found.push_back(v <= most);
  return found;
}

}  // namespace

Comparisons decide(const std::vector<std::pair<Blocks, Blocks>>& cases, double threshold) {
  Comparisons result;
  std::vector<std::size_t> at;  // of the cases that can be decided
  std::vector<Estimate> estimates;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const auto& [before, after] = cases[i];
    const Estimate e = estimate_of(before, after);
    result.cases.push_back({std::exp(e.difference), kNan, kNan, kNan, Verdict::kUndecided});
    if (std::min(before.size(), after.size()) < kLeastBlocks) continue;
    at.push_back(i);
    estimates.push_back(e);
  }
  const Prior prior = prior_of(estimates);
  const double beyond = std::log1p(threshold);
  const double strictest = kFalseDiscovery / static_cast<double>(estimates.size());
  std::vector<double> slower, faster, needed;
  for (std::size_t k = 0; k < at.size(); ++k) {
    const Estimate& e = estimates[k];
    const double degrees = prior.degrees + e.degrees;
    // All blocks of one side fall into a slow stretch of the machine now and then, and then lie
    // close together: one case in hundreds would look certain. So no case counts as steadier than
    // is usual.
    const double variance =
        std::max(prior.usual, (prior.degrees * prior.variance + e.degrees * e.variance) / degrees);
    const double error = e.unit * std::sqrt(variance);
    const double reach = distill::student_quantile((1 - kConfidence) / 2, degrees) * error;
    Comparison& c = result.cases[at[k]];
    c.low = std::exp(e.difference - reach), c.high = std::exp(e.difference + reach);
    slower.push_back(distill::student_tail((e.difference - beyond) / error, degrees));
    faster.push_back(distill::student_tail((-e.difference - beyond) / error, degrees));
    c.p = e.difference < 0 ? faster.back() : slower.back();
    needed.push_back(std::exp(beyond + distill::student_quantile(strictest, degrees) * error));
  }
  const std::vector<bool> is_slower = discoveries(slower), is_faster = discoveries(faster);
  for (std::size_t k = 0; k < at.size(); ++k)
    result.cases[at[k]].verdict = is_slower[k]   ? Verdict::kSlower
                                  : is_faster[k] ? Verdict::kFaster
                                                 : Verdict::kSame;
  result.decided = at.size();
  result.smallest_found = median(needed);
  return result;
}

}  // namespace retort::bench
