// What a study is read for: the figure, the table, the differences.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "tools/report/page_parts.h"
#include "tools/report/svg.h"

namespace retort::tools {
namespace {

using distill::Better;

// "84.12 &plusmn; 0.31"
std::string value_html(const MetricText& metric, const ArmResult& arm) {
  std::string text = number_with_interval(metric, arm.summary(metric.name), arm.interval(metric));
  if (const std::size_t at = text.find("+-"); at != std::string::npos)
    text.replace(at, 2, "&plusmn;");
  return text;
}

std::string state_of(const ArmResult& arm) {
  if (!arm.failures.empty()) return " (" + std::to_string(arm.failures.size()) + " failed)";
  return arm.finished ? "" : " (unfinished)";
}

// The intervals that arms show in these metrics, by name.
std::string intervals_told(const RunResults& results,
                           const std::vector<const MetricText*>& metrics) {
  using Kind = ShownInterval::Kind;
  bool student = false, cut = false, wilson = false;
  for (const auto* arms : {&results.teachers, &results.arms})
    for (const ArmResult& arm : *arms)
      for (const MetricText* metric : metrics) {
        const Kind kind = arm.interval(*metric).kind;
        student |= kind == Kind::kStudent || kind == Kind::kStudentCut;
        cut |= kind == Kind::kStudentCut;
        wilson |= kind == Kind::kWilson;
      }
  std::string out;
  if (student)
    out += std::string(" 95 % intervals of means are Student's t over seeds") +
           (cut ? ", cut at 0 (shares, steps, times) and at 100 %." : ".");
  if (wilson) out += " 95 % intervals of one run are Wilson's, of the rows of its set.";
  return out;
}

// A teacher far from its students would press them together.
bool is_near(double value, const std::vector<PlotRow>& rows) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const PlotRow& row : rows)
    for (const double v : {row.point, row.low, row.high})
      if (std::isfinite(v)) low = std::min(low, v), high = std::max(high, v);
  return value >= low - (high - low) && value <= high + (high - low);
}

PlotRow plot_row(const MetricText& metric, const ArmResult& arm, int colour) {
  const double none = std::numeric_limits<double>::quiet_NaN();
  PlotRow row{arm.shown() + state_of(arm), value_html(metric, arm), {}, none, none, none, colour};
  for (const double v : arm.finite(metric.name)) row.dots.push_back(metric.shown(v));
  const Summary s = arm.summary(metric.name);
  if (s.n == 0) return row;
  row.point = metric.shown(s.mean);
  const ShownInterval interval = arm.interval(metric);
  if (interval.kind == ShownInterval::Kind::kNone) return row;
  row.low = metric.shown(interval.low);
  row.high = metric.shown(interval.high);
  return row;
}

std::string figure(const RunResults& results, const MetricText& metric) {
  std::vector<PlotRow> rows;
  for (const ArmResult& arm : results.arms)
    rows.push_back(plot_row(metric, arm, colour_of(results, arm)));
  std::string teachers;
  for (const ArmResult& teacher : results.teachers) {
    if (teacher.summary(metric.name).n == 0) continue;
    PlotRow row = plot_row(metric, teacher, colour_of(results, teacher));
    if (is_near(row.point, rows)) {
      rows.insert(rows.begin(), std::move(row));
    } else {
      teachers += " The " + escape_html(teacher.shown()) + ": " + row.text + ".";
    }
  }
  std::string foot = teachers;
  if (metric.kind.better != Better::kNeither)
    foot =
        std::string(metric.kind.better == Better::kHigher ? "More" : "Less") + " is better." + foot;
  if (!metric.kind.doc.empty()) foot = capital(escape_html(metric.kind.doc)) + ". " + foot;
  return interval_plot(capital(metric.title()), rows, "<p class=\"soft\">" + foot + "</p>");
}

std::vector<const MetricText*> metrics_that(const RunResults& results, bool compare) {
  std::vector<const MetricText*> chosen;
  for (const MetricText& metric : results.metrics)
    if (metric.kind.compares == compare) chosen.push_back(&metric);
  return chosen;
}

std::string rounded_time(double seconds) {
  if (!(seconds > 0)) return "-";
  char text[40];
  if (seconds < 120) {
    std::snprintf(text, sizeof text, "%.1f s", seconds);
  } else if (seconds < 7200) {
    std::snprintf(text, sizeof text, "%.1f min", seconds / 60);
  } else {
    std::snprintf(text, sizeof text, "%.1f h", seconds / 3600);
  }
  return text;
}

std::string metric_cell(const MetricText& metric, const ArmResult& arm) {
  const Summary s = arm.summary(metric.name);
  std::string out = "<td>" + value_html(metric, arm);
  if (s.n > 1)
    out += "<span class=\"sub\">sd " + metric.number(s.sd) + ", median " + metric.number(s.median) +
           "</span>";
  return out + "</td>";
}

// with_costs: also parameters and time, and what the arm is called in the files.
std::string metrics_table(const RunResults& results, const std::vector<const MetricText*>& metrics,
                          bool with_costs) {
  std::string out = "<div class=\"scroll\"><table><tr><th>arm</th><th>seeds</th>";
  for (const MetricText* metric : metrics)
    out += "<th title=\"" + escape_html(metric->name + ": " + metric->kind.doc) + "\">" +
           breakable(metric->title()) + "</th>";
  out += with_costs ? "<th>parameters</th><th>wall time</th></tr>" : "</tr>";
  const auto row = [&](const ArmResult& arm) {
    out += std::string("<tr") + (arm.name == results.baseline ? " class=\"base\"" : "") + "><td>" +
           escape_html(arm.shown() + state_of(arm));
    if (with_costs && arm.shown() != arm.name)
      out += "<span class=\"sub\">" + escape_html(arm.name) + "</span>";
    out += "</td><td>" + std::to_string(arm.seeds.size()) + "</td>";
    for (const MetricText* metric : metrics) out += metric_cell(*metric, arm);
    if (with_costs)
      out += "<td>" + (arm.parameters > 0 ? short_number(arm.parameters) : "-") + "</td><td>" +
             rounded_time(arm.wall_s) + "</td>";
    out += "</tr>";
  };
  for (const ArmResult& teacher : results.teachers) row(teacher);
  for (const ArmResult& arm : results.arms) row(arm);
  return out + "</table></div>";
}

// What the corrected test says of a difference, with the direction that counts.
std::string verdict(const MetricText& metric, const PairedDifference& d) {
  if (d.summary.n < 2) return "one seed";
  if (!(d.p_holm < 0.05)) return "not told apart";
  if (metric.kind.better == Better::kNeither) return d.summary.mean > 0 ? "above" : "below";
  const bool better = (d.summary.mean > 0) == (metric.kind.better == Better::kHigher);
  return better ? "<b class=\"good\">better</b>" : "<b class=\"bad\">worse</b>";
}

std::string p_text(double p) {
  if (p < 0.001) return "p &lt; 0.001";
  char text[24];
  std::snprintf(text, sizeof text, "p = %.3f", p);
  return text;
}

std::string difference_cell(const MetricText& metric, const PairedDifference* d) {
  if (!d) return "<td>-</td>";
  std::string out = "<td>" + metric.difference(d->summary.mean);
  if (d->summary.n > 1)
    out += " [" + metric.difference(d->summary.low95) + ", " +
           metric.difference(d->summary.high95) + "]";
  out += "<span class=\"sub\">" + verdict(metric, *d);
  if (d->summary.n > 1) out += ", " + p_text(d->p_holm);
  return out + "</span></td>";
}

}  // namespace

std::string failures_section(const RunResults& results) {
  std::string out;
  for (const auto* arms : {&results.teachers, &results.arms})
    for (const ArmResult& arm : *arms)
      for (const Failure& f : arm.failures)
        out += "<p class=\"failed\"><b>Failed:</b> " + escape_html(arm.shown()) + ", seed " +
               short_number(f.seed) + ", at step " + short_number(f.step) + ": " +
               escape_html(f.reason) + "</p>";
  return out;
}

std::string figures_section(const RunResults& results) {
  const auto metrics = metrics_that(results, true);
  if (metrics.empty()) return "";
  bool dots = false;
  for (const ArmResult& arm : results.arms) dots |= arm.seeds.size() > 1;
  std::string out = "<h2>The result</h2><p class=\"soft\">" +
                    std::string(dots ? "Large points are means, small ones single seeds." : "") +
                    intervals_told(results, metrics) + "</p>" + figure(results, *metrics[0]);
  if (metrics.size() == 1) return out;
  out += "<details><summary>The same for the other metrics</summary><div class=\"charts\">";
  for (std::size_t i = 1; i < metrics.size(); ++i) out += figure(results, *metrics[i]);
  return out + "</div></details>";
}

std::string results_section(const RunResults& results) {
  const auto compared = metrics_that(results, true), others = metrics_that(results, false);
  std::string out = "<h2>Results</h2>" + metrics_table(results, compared, true) +
                    "<p class=\"soft\">Mean and 95 % interval; sd with n - 1." +
                    intervals_told(results, compared) + "</p>";
  if (!others.empty()) out += "<h2>Other metrics</h2>" + metrics_table(results, others, false);
  return out;
}

std::string differences_section(const RunResults& results) {
  const ArmResult* const base = results.arm(results.baseline);
  if (!base || results.paired.empty()) return "";
  const auto find = [&](const ArmResult& arm, const MetricText& metric) -> const PairedDifference* {
    for (const PairedDifference& d : results.paired)
      if (d.arm == arm.name && d.metric == metric.name) return &d;
    return nullptr;
  };
  const auto metrics = metrics_that(results, true);
  std::string out = "<h2>Differences to " + escape_html(base->shown()) +
                    "</h2><div class=\"scroll\"><table><tr><th>arm</th><th>pairs</th>";
  for (const MetricText* metric : metrics) {
    std::string title = metric->label;
    if (!metric->unit().empty()) title += metric->is_share() ? ", points" : ", " + metric->unit();
    out += "<th>" + breakable(title) + "</th>";
  }
  out += "</tr>";
  for (const ArmResult& arm : results.arms) {
    std::string cells;
    std::int64_t pairs = 0;
    for (const MetricText* metric : metrics) {
      const PairedDifference* const d = find(arm, *metric);
      if (d) pairs = std::max(pairs, d->summary.n);
      cells += difference_cell(*metric, d);
    }
    if (pairs > 0)
      out += "<tr><td>" + escape_html(arm.shown()) + "</td><td>" + std::to_string(pairs) + "</td>" +
             cells + "</tr>";
  }
  return out +
         "</table></div><p class=\"soft\">Arm minus baseline, paired by seed: mean and 95 % "
         "interval (Student's t, not corrected). p and the verdict (at 0.05) are of the paired t "
         "test after Holm's correction over the arms of a column.</p>";
}

}  // namespace retort::tools
