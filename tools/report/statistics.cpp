// Mean, spread and intervals.
#include <algorithm>
#include <cmath>
#include <limits>

#include "distill/metrics/students_t.h"
#include "kernels/common/check.h"
#include "tools/report/report.h"

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

}  // namespace retort::tools
