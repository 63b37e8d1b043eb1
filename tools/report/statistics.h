// Mean, spread, intervals and tests of few values.
#pragma once
#include <cstdint>
#include <vector>

#include "tools/report/metric_text.h"

namespace retort::tools {

/// Mean, spread and interval of one metric over seeds.
struct Summary {
  std::int64_t n = 0;
  double mean = 0;
  double sd = 0;  // with n - 1; 0 for n = 1
  double median = 0;
  double low95 = 0, high95 = 0;  // Student t interval of the mean; both NaN for n = 1
};
Summary summarize(const std::vector<double>& values);

/// Quantile of Student's t: the t with P(T <= t) = p for `dof` degrees of freedom, 0 < p < 1, dof
/// >= 1.
double student_t_quantile(double p, double dof);

/// Of the hypothesis that the mean is 0: two-sided t test. NaN for n < 2; for sd = 0 it is 1 if the
/// mean is 0, else 0.
double t_test(const Summary& differences);

/// Holm's step-down correction: with p sorted, max over j <= i of min(1, (m - j) p_j), j from 0.
/// NaN stay and do not count.
/// Source    Holm 1979, Scandinavian Journal of Statistics 6:65.
std::vector<double> holm(const std::vector<double>& p);

/// The 95 % interval that is shown of a metric.
struct ShownInterval {
  enum class Kind : std::uint8_t {
    kNone,        // one run, and nothing known of its rows
    kWilson,      // one run: of a proportion on `rows` rows
    kStudent,     // several seeds: Student's t
    kStudentCut,  // the same, cut at 0 where nothing is below (steps), and at 100 % of a share
  };
  Kind kind = Kind::kNone;
  double low = 0, high = 0;
};
/// rows: that each value is a mean of; 0 = not known.
ShownInterval shown_interval(const MetricText& metric, const Summary& summary, double rows);

/// "84.12 +- 0.31", or "84.12 [80.02, 87.50]" where the interval is not symmetric; "-" for n = 0.
std::string number_with_interval(const MetricText& metric, const Summary& summary,
                                 const ShownInterval& interval);

}  // namespace retort::tools
