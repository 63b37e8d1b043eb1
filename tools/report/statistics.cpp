#include "tools/report/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "distill/metrics/binomial.h"
#include "distill/metrics/students_t.h"
#include "kernels/common/check.h"

namespace retort::tools {

double student_t_quantile(double p, double dof) {
  RETORT_CHECK(p > 0 && p < 1 && dof >= 1,
               "[student_t_quantile] expected 0 < p < 1 and dof >= 1, got ", p, ", ", dof);
  const double t = distill::student_quantile(std::min(p, 1 - p), dof);
  return p < 0.5 ? -t : t;
}

Summary summarize(const std::vector<double>& values) {
  Summary s;
  s.n = static_cast<std::int64_t>(values.size());
  s.low95 = s.high95 = std::numeric_limits<double>::quiet_NaN();
  if (values.empty()) {
    s.mean = s.median = std::numeric_limits<double>::quiet_NaN();
    return s;
  }
  const double n = static_cast<double>(values.size());
  for (const double v : values) s.mean += v / n;
  std::vector<double> sorted = values;
  std::sort(sorted.begin(), sorted.end());
  const std::size_t half = sorted.size() / 2;
  s.median = sorted.size() % 2 ? sorted[half] : 0.5 * (sorted[half - 1] + sorted[half]);
  if (values.size() < 2) return s;
  double squares = 0;
  for (const double v : values) squares += (v - s.mean) * (v - s.mean);
  s.sd = std::sqrt(squares / (n - 1));
  const double half_width = student_t_quantile(0.975, n - 1) * s.sd / std::sqrt(n);
  s.low95 = s.mean - half_width;
  s.high95 = s.mean + half_width;
  return s;
}

double t_test(const Summary& d) {
  if (d.n < 2) return std::numeric_limits<double>::quiet_NaN();
  if (d.sd == 0) return d.mean == 0 ? 1 : 0;
  const double n = static_cast<double>(d.n);
  return 2 * distill::student_tail(std::abs(d.mean) / d.sd * std::sqrt(n), n - 1);
}

std::vector<double> holm(const std::vector<double>& p) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < p.size(); ++i)
    if (!std::isnan(p[i])) order.push_back(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return p[a] < p[b]; });
  std::vector<double> corrected = p;
  double least = 0;
  for (std::size_t k = 0; k < order.size(); ++k) {
    least = std::max(least, std::min(1.0, static_cast<double>(order.size() - k) * p[order[k]]));
    corrected[order[k]] = least;
  }
  return corrected;
}

ShownInterval shown_interval(const MetricText& metric, const Summary& s, double rows) {
  using Kind = ShownInterval::Kind;
  if (s.n >= 2) {
    using distill::Unit;
    const Unit unit = metric.kind.unit;
    const bool from_0 =
        unit == Unit::kSteps || unit == Unit::kSeconds || unit == Unit::kCount || metric.is_share();
    const bool below = from_0 && s.low95 < 0, above = metric.is_share() && s.high95 > 1;
    return {below || above ? Kind::kStudentCut : Kind::kStudent, below ? 0 : s.low95,
            above ? 1 : s.high95};
  }
  if (s.n == 0 || !metric.kind.proportion || !(rows >= 1 && rows < 1e15) || s.mean < 0 ||
      s.mean > 1)
    return {};
  const distill::Interval wilson = distill::wilson(std::llround(s.mean * rows), std::llround(rows));
  return {Kind::kWilson, wilson.low, wilson.high};
}

std::string number_with_interval(const MetricText& metric, const Summary& s,
                                 const ShownInterval& interval) {
  if (s.n == 0) return "-";
  const std::string mean = metric.number(s.mean);
  switch (interval.kind) {
    case ShownInterval::Kind::kNone: return mean;
    case ShownInterval::Kind::kStudent:
      return mean + " +- " + metric.number(interval.high - s.mean);
    case ShownInterval::Kind::kWilson:
    case ShownInterval::Kind::kStudentCut:
      return mean + " [" + metric.number(interval.low) + ", " + metric.number(interval.high) + "]";
  }
  return mean;
}

}  // namespace retort::tools
