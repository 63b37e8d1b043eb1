// What happened while training: curves, curricula, schedules.
#include <algorithm>
#include <cmath>

#include "tools/report/curriculum_images.h"
#include "tools/report/page_parts.h"
#include "tools/report/svg.h"

namespace retort::tools {
namespace {

namespace fs = std::filesystem;

Series series_of(const MetricText& metric, const ArmResult& arm, const Curve& curve, int colour) {
  Series s{arm.shown(), curve.x, curve.mean, curve.low, curve.high, colour};
  for (auto* values : {&s.y, &s.low, &s.high})
    for (double& v : *values) v = metric.shown(v);
  return s;
}

// The chart of one kind on one set, a line per arm.
std::string curve_chart(const RunResults& results, const std::string& kind,
                        const std::string& set) {
  const MetricText metric(set + "." + kind);
  std::vector<Series> lines;
  for (const ArmResult& arm : results.arms) {
    const auto sets = arm.curves.find(kind);
    if (sets == arm.curves.end() || !sets->second.contains(set)) continue;
    lines.push_back(series_of(metric, arm, sets->second.at(set), colour_of(results, arm)));
  }
  if (lines.empty()) return "";
  return chart({capital(metric.title()), results.x_is_epoch ? "epoch" : "step"}, lines);
}

bool is_constant(const Curve& curve) {
  return std::all_of(curve.mean.begin(), curve.mean.end(),
                     [&](double v) { return v == curve.mean.front(); });
}

// A chart of the arms whose schedule changes, and a line of text on the others.
std::string schedule(const RunResults& results, const std::string& title,
                     Curve ArmResult::*member) {
  std::vector<Series> lines;
  std::vector<double> values;  // of constant ones, as they were met
  std::vector<std::string> arms;
  for (const ArmResult& arm : results.arms) {
    const Curve& curve = arm.*member;
    if (curve.x.empty()) continue;
    if (!is_constant(curve)) {
      lines.push_back({arm.shown(), curve.x, curve.mean, {}, {}, colour_of(results, arm)});
      continue;
    }
    const auto at = std::find(values.begin(), values.end(), curve.mean[0]) - values.begin();
    if (at == static_cast<std::ptrdiff_t>(values.size())) {
      values.push_back(curve.mean[0]);
      arms.emplace_back();
    }
    std::string& of = arms[static_cast<std::size_t>(at)];
    of += (of.empty() ? "" : ", ") + escape_html(arm.shown());
  }
  std::string text;
  for (std::size_t i = 0; i < values.size(); ++i)
    text += (i ? "; " : "") + ("<b>" + short_number(values[i]) + "</b> for " + arms[i]);
  if (!text.empty()) text = "<p>" + capital(title) + ", constant: " + text + ".</p>";
  if (lines.empty()) return text;
  return text + "<div class=\"charts\">" + chart({capital(title), "step", false, true}, lines) +
         "</div>";
}

std::vector<fs::path> files_in(const fs::path& folder, const char* extension) {
  std::vector<fs::path> files;
  if (!fs::is_directory(folder)) return files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == extension) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

std::string curves_section(const RunResults& results) {
  std::vector<std::string> sets{"train"};
  sets.insert(sets.end(), results.sets.begin(), results.sets.end());
  std::string compared, others;
  for (const distill::MetricKind* kind : distill::metric_kinds())
    if (kind->curve)
      for (const std::string& set : sets)
        (kind->compares ? compared : others) += curve_chart(results, kind->name, set);
  if (compared.empty() && others.empty()) return "";
  std::string out =
      "<h2>Curves</h2><p class=\"soft\">Lines are means over seeds, bands their least and greatest "
      "value; a seed that stopped early keeps its last one.</p><div class=\"charts\">" +
      compared + "</div>\n";
  if (!others.empty())
    out += "<details><summary>More curves</summary><div class=\"charts\">" + others +
           "</div></details>\n";
  return out;
}

std::string curricula_section(const fs::path& folder) {
  std::string charts;
  for (const fs::path& file : files_in(folder / "curriculum", ".csv")) {
    const std::vector<CurriculumRow> rows = read_curriculum(file);
    Series right{"teacher right", {}, {}, {}, {}, 0}, wrong{"teacher wrong", {}, {}, {}, {}, 4};
    for (std::size_t i = 0; i < rows.size(); ++i) {
      Series& s = rows[i].correct ? right : wrong;
      s.x.push_back(static_cast<double>(i));
      s.y.push_back(rows[i].score);
    }
    const std::string name = file.filename().string();
    charts += chart(
        {"Scores of the curriculum " + file.stem().string(), "rank (fed from left to right)", true,
         false,
         curriculum_images_html(file.parent_path() / (file.stem().string() + ".images.json")) +
             "<p class=\"soft\">" + link_to("curriculum/" + name, name) + "</p>"},
        {right, wrong});
  }
  return charts.empty() ? "" : "<h2>Curriculum</h2><div class=\"charts\">" + charts + "</div>\n";
}

std::string schedules_section(const RunResults& given) {
  // Files of old say temperature 1 and lambda 0 where there is neither.
  RunResults results = given;
  for (ArmResult& arm : results.arms)
    if (is_constant(arm.lambda) && !arm.lambda.mean.empty() && arm.lambda.mean[0] == 0)
      arm.temperature = {};
  const std::string body =
      schedule(results, "teacher reliance (lambda)", &ArmResult::lambda) +
      schedule(results, "temperature (tau)", &ArmResult::temperature) +
      schedule(results, "throughput, samples per second", &ArmResult::samples_per_s);
  return body.empty() ? ""
                      : "<h2>Schedules and throughput</h2><p class=\"soft\">First seed of each "
                        "arm.</p>" +
                            body;
}

}  // namespace retort::tools
