#include "tools/report/sweep_page.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>

#include "tools/report/axis.h"
#include "tools/report/page_parts.h"
#include "tools/report/svg.h"

namespace retort::tools {
namespace {

// One axis of the figure: where a value lies, and what stands at its ends.
class Axis {
 public:
  explicit Axis(const SweepAxis& of) : of_(of) {}

  void include(const std::string& value) {
    if (of_.choices.empty()) range_.include(place(value));
  }
  // In percent from the bottom; NaN: nowhere.
  double percent(const std::string& value) const {
    if (of_.choices.empty()) return range_.low < range_.high ? range_.percent(place(value)) : 50;
    const auto at = std::find(of_.choices.begin(), of_.choices.end(), value);
    if (at == of_.choices.end()) return std::nan("");
    return 100.0 * static_cast<double>(at - of_.choices.begin()) /
           static_cast<double>(of_.choices.size() - 1);
  }
  std::string top() const { return of_.choices.empty() ? text(range_.high) : of_.choices.back(); }
  std::string bottom() const {
    return of_.choices.empty() ? text(range_.low) : of_.choices.front();
  }

 private:
  double place(const std::string& value) const {
    const double v = std::strtod(value.c_str(), nullptr);
    return of_.logarithmic ? std::log10(v) : v;
  }
  std::string text(double place) const {
    return short_number(of_.logarithmic ? std::pow(10, place) : place);
  }

  const SweepAxis& of_;
  Range range_;
};

// The last rung of each trial, in the order of the results.
std::vector<const SweepTrial*> last_rungs(const SweepResults& results) {
  std::vector<const SweepTrial*> last;
  std::set<std::int64_t> seen;
  for (const SweepTrial& trial : results.trials)
    if (seen.insert(trial.number).second) last.push_back(&trial);
  return last;
}

std::string label(double left, bool top, const std::string& text, const char* weight) {
  return format("<i class=\"xt\" style=\"left:%.2f%%;", left) +
         (top ? "top:auto;bottom:100%;margin:0 0 7px;" : "") + weight + "\">" + escape_html(text) +
         "</i>";
}

std::string figure(const SweepResults& results) {
  std::vector<const SweepTrial*> trials = last_rungs(results);
  std::erase_if(trials, [](const SweepTrial* t) { return !std::isfinite(t->value); });
  if (trials.size() < 2 || results.axes.empty()) return "";
  std::vector<Axis> axes(results.axes.begin(), results.axes.end());
  Range metric;
  for (const SweepTrial* trial : trials) {
    for (std::size_t a = 0; a < axes.size(); ++a) axes[a].include(trial->values[a]);
    metric.include(trial->value);
  }
  const auto left = [&](std::size_t a) {
    return 100.0 * static_cast<double>(a) / static_cast<double>(axes.size());
  };
  std::string svg =
      "<svg viewBox=\"0 0 100 100\" preserveAspectRatio=\"none\" aria-hidden=\"true\">";
  for (std::size_t a = 0; a <= axes.size(); ++a)
    svg += format("<path class=\"axis\" d=\"M%.2f 0V100\"/>", left(a));
  const std::size_t best = std::max<std::size_t>(1, trials.size() / 10);
  for (std::size_t i = trials.size(); i-- > 0;) {  // the best on top
    std::string path;
    for (std::size_t a = 0; a <= axes.size(); ++a) {
      const double at = a < axes.size()            ? axes[a].percent(trials[i]->values[a])
                        : metric.low < metric.high ? metric.percent(trials[i]->value)
                                                   : 50;
      path += (path.empty() ? "M" : "L") + format("%.2f %.2f", left(a), 100 - at);
    }
    svg += "<path class=\"line " + colour_class(i < best ? 1 : 8) + "\"" +
           (i < best ? "" : " style=\"opacity:.45;stroke-width:1.2\"") + " d=\"" + path +
           "\"><title>" + escape_html("trial " + std::to_string(trials[i]->number)) +
           "</title></path>";
  }
  std::string labels;
  for (std::size_t a = 0; a <= axes.size(); ++a) {
    const bool last = a == axes.size();
    labels += label(left(a), true, last ? results.metric.number(metric.high) : axes[a].top(), "");
    labels +=
        label(left(a), false, last ? results.metric.number(metric.low) : axes[a].bottom(), "");
  }
  std::string names = "<p class=\"soft\">Axes from the left: ";
  for (const SweepAxis& axis : results.axes)
    names += breakable(axis.key) + " " + escape_html(axis.range) + ", ";
  names += escape_html(results.metric.title()) + ". A line is a trial at its last rung; ";
  names += best == 1 ? "the best one stands out.</p>"
                     : "the best " + std::to_string(best) + " stand out.</p>";
  return figure_head("Trials") + "<div class=\"plot\" style=\"margin:30px 40px 30px\">" + svg +
         "</svg>" + labels + "</div>" + names + "</figure>";
}

std::string cell(const SweepResults& results, const SweepTrial& trial) {
  return trial.failed.empty() ? results.metric.number(trial.value) : "failed";
}

}  // namespace

std::string sweep_page(const SweepResults& results) {
  std::string page = page_head(results.title) + "<body>\n<h1>" + escape_html(results.title) +
                     "</h1><p class=\"soft\">" + std::to_string(last_rungs(results).size()) +
                     " trials, ordered by " + escape_html(results.metric.title()) + "</p>";
  for (const SweepTrial& trial : results.trials)
    if (!trial.failed.empty())
      page += "<p class=\"failed\">trial " + std::to_string(trial.number) + ": " +
              escape_html(trial.failed) + "</p>";
  page += figure(results);
  page += "<h2>All trials</h2><div class=\"scroll\"><table><tr><th>trial</th><th>" +
          escape_html(capital(results.metric.title())) + "</th>";
  for (const SweepAxis& axis : results.axes)
    page += "<th>" + breakable(axis.key) + "<span class=\"sub\">" + escape_html(axis.range) +
            "</span></th>";
  page += "<th>trained</th></tr>";
  for (const SweepTrial& trial : results.trials) {
    page += "<tr><td>" + link_to(trial.folder + "/report.html", std::to_string(trial.number)) +
            "</td><td>" + escape_html(cell(results, trial)) + "</td>";
    for (const std::string& value : trial.values) page += "<td>" + escape_html(value) + "</td>";
    page += "<td>" + escape_html(trial.budget) + "</td></tr>";
  }
  return page + "</table></div></body></html>\n";
}

std::string sweep_table(const SweepResults& results, std::size_t rows) {
  std::vector<std::vector<std::string>> table{{"trial", results.metric.title()}};
  for (const SweepAxis& axis : results.axes) table[0].push_back(axis.key);
  table[0].emplace_back("trained");
  for (const SweepTrial& trial : results.trials) {
    if (table.size() > rows) break;
    std::vector<std::string> row{std::to_string(trial.number), cell(results, trial)};
    row.insert(row.end(), trial.values.begin(), trial.values.end());
    row.push_back(trial.budget);
    table.push_back(std::move(row));
  }
  std::string text;
  for (const auto& row : table) {
    for (std::size_t c = 0; c < row.size(); ++c) {
      std::size_t width = 0;
      for (const auto& other : table) width = std::max(width, other[c].size());
      text += (c > 0 ? "  " : "") + std::string(width - row[c].size(), ' ') + row[c];
    }
    text += "\n";
  }
  return text;
}

}  // namespace retort::tools
