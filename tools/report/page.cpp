// report.html: one self-contained page, no scripts, nothing fetched.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>

#include "kernels/common/check.h"
#include "tools/report/report.h"
#include "tools/report/results.h"
#include "tools/report/svg.h"

namespace retort::tools {
namespace {

namespace fs = std::filesystem;

constexpr const char* kHead = R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root{--ink:#1d2433;--soft:#5b6475;--line:#d9dee7;--page:#fff;--panel:#f6f8fb}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9f0;--soft:#9aa4b5;--line:#343b49;--page:#14171d;--panel:#1c2129}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:0 auto;max-width:1360px;padding:24px}
h1{font-size:24px;margin:0 0 4px}h2{font-size:18px;margin:32px 0 8px}p{margin:6px 0}.soft,.none{color:var(--soft)}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:5px 14px 5px 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{white-space:normal;vertical-align:bottom}th:first-child,td:first-child{text-align:left}th{font-weight:600;color:var(--soft)}tr.base td{background:var(--panel)}
td .sub{color:var(--soft);font-size:12px;display:block}b.up{color:#15803d}b.down{color:#b91c1c}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,520px),1fr));gap:18px}
figure{margin:0;background:var(--panel);border-radius:8px;padding:12px 14px}figcaption{font-weight:600;margin-bottom:4px}
svg{width:100%;height:auto}.grid{stroke:var(--line)}.axis{stroke:var(--soft)}.tick,.label{fill:var(--soft);font-size:11px}
.line{fill:none;stroke-width:1.8}.point{fill:none;stroke-width:6;stroke-linecap:round}.dots{fill:none;stroke-width:2.4;stroke-linecap:round;opacity:.55}.band{stroke:none!important;opacity:.14}
.legend{list-style:none;margin:4px 0 0;padding:0;display:flex;flex-wrap:wrap;gap:4px 14px;font-size:13px}
.legend i{display:inline-block;width:12px;height:3px;margin-right:6px;vertical-align:middle}
.note{background:#fff4d6;color:#5c4500;border-left:4px solid #e0a800;padding:6px 12px;margin:6px 0}
pre{background:var(--panel);padding:12px;border-radius:8px;overflow-x:auto;font-size:12.5px}
)";

std::string colour_rules() {
  static const char* colours[] = {"#2563eb", "#ea580c", "#16a34a", "#9333ea", "#dc2626",
                                  "#0891b2", "#a16207", "#db2777", "#64748b", "#65a30d"};
  std::string out;
  for (int i = 0; i < 10; ++i) {
    const std::string k = std::to_string(i);
    out += "path.c" + k + ",polygon.c" + k + "{stroke:" + colours[i] + "}polygon.c" + k +
           "{fill:" + colours[i] + "}i.c" + k + "{background:" + colours[i] + "}\n";
  }
  return out;
}

Summary summary_of(const ArmResult& arm, const std::string& metric) {
  const auto it = arm.metrics.find(metric);
  if (it == arm.metrics.end()) return Summary{};
  std::vector<double> values;
  for (const double v : it->second)
    if (std::isfinite(v)) values.push_back(v);
  return summarize(values);
}

// Long names of metrics may be broken after their dots and underscores.
std::string breakable(const std::string& name) {
  std::string out;
  for (const char c : name) {
    out += c;
    if (c == '.' || c == '_') out += "<wbr>";
  }
  return out;
}

// A difference of means and its bounds, in one number of digits: accuracies in points.
std::string difference(const std::string& metric, double value) {
  char text[40];
  const bool accuracy = metric.ends_with("accuracy");
  const int digits = accuracy ? 2 : metric.starts_with("steps_to") ? 0 : 4;
  std::snprintf(text, sizeof text, "%+.*f", digits, (accuracy ? 100 : 1) * value);
  return text;
}

// first: what arms are compared by; else the rest.
std::string metrics_table(const RunResults& results, bool first) {
  std::string out = "<div class=\"scroll\"><table><tr><th>arm</th><th>n</th>";
  std::vector<std::string> metrics;
  for (const std::string& metric : results.metric_names)
    if (compares_arms(metric) == first) metrics.push_back(metric);
  if (!first && metrics.empty()) return "";
  for (const std::string& metric : metrics)
    out += "<th>" + breakable(escape_html(metric)) + "</th>";
  out += first ? "<th>parameters</th><th>wall time</th></tr>" : "</tr>";
  const auto row = [&](const ArmResult& arm) {
    out += std::string("<tr") + (arm.name == results.baseline ? " class=\"base\"" : "") + "><td>" +
           escape_html(arm.shown()) + (arm.finished ? "" : " (unfinished)") +
           (arm.shown() == arm.name || !first
                ? ""
                : "<span class=\"sub\">" + escape_html(arm.name) + "</span>") +
           "</td><td>" + std::to_string(arm.seeds.size()) + "</td>";
    for (const std::string& metric : metrics) {
      const Summary s = summary_of(arm, metric);
      out += "<td>" + escape_html(format_metric(metric, s));
      if (s.n > 1) {
        const double scale = metric.ends_with("accuracy") ? 100 : 1;
        const std::string median = metric.starts_with("steps_to")
                                       ? std::to_string(std::llround(s.median))
                                       : short_number(scale * s.median);
        out += "<span class=\"sub\">sd " + short_number(scale * s.sd) + ", median " + median +
               "</span>";
      }
      out += "</td>";
    }
    if (first)
      out += "<td>" + (arm.parameters > 0 ? short_number(arm.parameters) : "-") + "</td><td>" +
             (arm.wall_s > 0 ? short_number(arm.wall_s) + " s" : "-") + "</td>";
    out += "</tr>";
  };
  for (const ArmResult& teacher : results.teachers) row(teacher);
  for (const ArmResult& arm : results.arms) row(arm);
  return out + "</table></div>";
}

std::string results_section(const RunResults& results) {
  std::string out =
      "<h2>Results</h2>" + metrics_table(results, true) +
      "<p class=\"soft\">Mean +- half of the 95 % interval (Student's t over seeds); sd with "
      "n - 1.</p>";
  if (const std::string others = metrics_table(results, false); !others.empty())
    out += "<h2>Other metrics</h2>" + others;
  if (results.paired.empty()) return out;
  const auto shown = [&](const std::string& name) {
    for (const ArmResult& arm : results.arms)
      if (arm.name == name) return escape_html(arm.shown());
    return escape_html(name);
  };
  out += "<h2>Differences to " + shown(results.baseline) +
         ", paired by seed</h2><div "
         "class=\"scroll\"><table><tr><th>arm</th><th>metric</th><th>n</th><th>mean "
         "difference</th><th>95 % interval</th><th></th></tr>";
  for (const PairedDifference& d : results.paired) {
    const bool clear = d.summary.n > 1 && (d.summary.low95 > 0 || d.summary.high95 < 0);
    out += "<tr><td>" + shown(d.arm) + "</td><td>" + escape_html(d.metric) + "</td><td>" +
           std::to_string(d.summary.n) + "</td><td>" + difference(d.metric, d.summary.mean) +
           "</td><td>" +
           (d.summary.n > 1 ? "[" + difference(d.metric, d.summary.low95) + ", " +
                                  difference(d.metric, d.summary.high95) + "]"
                            : "-") +
           "</td><td>" +
           (clear             ? (d.summary.mean > 0 ? "<b>above</b>" : "<b>below</b>")
            : d.summary.n > 1 ? "not distinguished"
                              : "one seed") +
           "</td></tr>";
  }
  return out +
         "</table></div><p class=\"soft\">Accuracies in points. An interval that excludes 0 is "
         "marked; nothing is corrected for many comparisons.</p>";
}

// "12 %", of a share.
std::string percent(double share) {
  char text[16];
  std::snprintf(text, sizeof text, share < 0.0995 ? "%.1f %%" : "%.0f %%", 100 * share);
  return text;
}

// What the arms cost: throughput, shares of the step, memory.
std::string costs_section(const RunResults& results) {
  std::vector<const ArmResult*> arms;
  for (const ArmResult& teacher : results.teachers) arms.push_back(&teacher);
  for (const ArmResult& arm : results.arms) arms.push_back(&arm);
  const char* const phases[] = {"data", "teacher", "student", "loss", "backward", "update"};
  const char* const roles[] = {"total",       "parameters", "gradients", "optimizer",
                               "activations", "workspace",  "data"};
  bool any_shares = false, any_memory = false;
  for (const ArmResult* arm : arms) {
    any_shares |= !arm->steps.shares.empty();
    any_memory |= !arm->memory_mib.empty();
  }
  std::string out;
  const auto table = [&](const std::string& head, const auto& cells) {
    out += "<div class=\"scroll\"><table><tr><th>arm</th>" + head + "</tr>";
    for (const ArmResult* arm : arms)
      out += "<tr><td>" + escape_html(arm->shown()) + "</td>" + cells(*arm) + "</tr>";
    out += "</table></div>";
  };
  const auto cell = [](const std::map<std::string, double>& values, const char* key,
                       const auto& text) {
    const auto at = values.find(key);
    return "<td>" + (at == values.end() ? std::string("-") : text(at->second)) + "</td>";
  };
  if (any_shares) {
    std::string head = "<th>samples/s</th>";
    for (const char* phase : phases) head += std::string("<th>") + phase + "</th>";
    table(head + "<th>rest</th>", [&](const ArmResult& arm) {
      std::string row =
          "<td>" +
          (arm.steps.samples_per_s > 0 ? short_number(std::round(arm.steps.samples_per_s)) : "-") +
          "</td>";
      double sum = 0;
      for (const char* phase : phases) row += cell(arm.steps.shares, phase, percent);
      for (const auto& [phase, share] : arm.steps.shares) sum += share;
      return row + "<td>" + (arm.steps.shares.empty() ? "-" : percent(std::max(0.0, 1 - sum))) +
             "</td>";
    });
    out +=
        "<p class=\"soft\">Training steps of all seeds: throughput of one job, and the share of "
        "its "
        "time in each phase.</p>";
  }
  if (any_memory) {
    std::string head;
    for (const char* role : roles) head += std::string("<th>") + role + "</th>";
    table(head, [&](const ArmResult& arm) {
      std::string row;
      for (const char* role : roles)
        row += cell(arm.memory_mib, role, [](double mib) { return short_number(mib); });
      return row;
    });
    out +=
        "<p class=\"soft\">Peak memory of the whole process until the arm ended, in MiB: of all "
        "tensors, and of each role by itself. Jobs that run side by side are added.</p>";
  }
  return out.empty() ? out : "<h2>Time and memory</h2>" + out;
}

Series series_of(const std::string& name, const Curve& curve, int colour) {
  Series s{name, curve.x, curve.mean, {}, {}, colour};
  if (curve.low.size() == curve.x.size()) s.low = curve.low, s.high = curve.high;
  return s;
}

// One chart per split, one line per arm.
std::string curve_charts(const RunResults& results, const char* what,
                         std::map<std::string, Curve> ArmResult::*member) {
  std::vector<std::string> splits;
  for (const ArmResult& arm : results.arms)
    for (const auto& [split, curve] : arm.*member)
      if (std::find(splits.begin(), splits.end(), split) == splits.end()) splits.push_back(split);
  std::string out;
  for (const std::string& split : splits) {
    std::vector<Series> lines;
    int colour = 0;
    for (const ArmResult& arm : results.arms) {
      const auto it = (arm.*member).find(split);
      if (it != (arm.*member).end()) lines.push_back(series_of(arm.shown(), it->second, colour));
      ++colour;
    }
    out += chart({split + " " + what, results.x_is_epoch ? "epoch" : "step", what}, lines);
  }
  return out;
}

std::string schedule_chart(const RunResults& results, const char* title, const char* label,
                           Curve ArmResult::*member) {
  std::vector<Series> lines;
  int colour = 0;
  for (const ArmResult& arm : results.arms) {
    if (!(arm.*member).x.empty()) lines.push_back(series_of(arm.shown(), arm.*member, colour));
    ++colour;
  }
  if (lines.empty()) return "";
  return chart({title, "step", label, false, true}, lines);
}

std::string curriculum_charts(const fs::path& folder) {
  std::string out;
  if (!fs::is_directory(folder / "curriculum")) return out;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder / "curriculum"))
    if (entry.path().extension() == ".csv") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    const std::vector<CurriculumRow> rows = read_curriculum(file);
    Series right{"teacher right", {}, {}, {}, {}, 0}, wrong{"teacher wrong", {}, {}, {}, {}, 4};
    for (std::size_t i = 0; i < rows.size(); ++i) {
      Series& s = rows[i].correct ? right : wrong;
      s.x.push_back(static_cast<double>(i));
      s.y.push_back(rows[i].score);
    }
    out += chart({"curriculum " + file.stem().string(), "rank (fed left to right)", "score", true},
                 {right, wrong});
  }
  return out;
}

void write_safely(const fs::path& file, const std::string& text) {
  // Its own name: `kdtrain report` may write beside the run itself.
  const fs::path temporary = file.string() + "." + std::to_string(::getpid()) + ".tmp";
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  RETORT_CHECK_AS(kIo, fd >= 0, "cannot write ", temporary.string(), ": ", std::strerror(errno));
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::write(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      ::close(fd);
      ::unlink(temporary.c_str());
      fail(ErrorCode::kIo, "cannot write ", file.string(), ": ", std::strerror(error));
    }
    done += static_cast<std::size_t>(n);
  }
  const bool synced = ::fsync(fd) == 0;
  const bool closed = ::close(fd) == 0;
  RETORT_CHECK_AS(kIo, synced && closed && ::rename(temporary.c_str(), file.c_str()) == 0,
                  "cannot write ", file.string(), ": ", std::strerror(errno));
}

std::string read_text(const fs::path& file) {
  std::ifstream in(file);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

}  // namespace

void write_report(const fs::path& folder, const ReportText& text) {
  RunResults results = gather_results(read_run_log(folder / "metrics.jsonl"));
  for (ArmResult& arm : results.arms)
    if (const auto at = text.labels.find(arm.name); at != text.labels.end()) arm.label = at->second;
  write_safely(folder / "results.json", results_to_json(results));

  fs::path place = fs::absolute(folder).lexically_normal();
  if (!place.has_filename()) place = place.parent_path();  // "runs/six/"
  const std::string title = text.title.empty() ? place.filename().string() : text.title;
  std::string page = kHead + colour_rules() + "</style><title>" + escape_html(title) +
                     " - Retort report</title></head><body>\n<h1>" + escape_html(title) + "</h1>";
  if (!text.description.empty()) page += "<p>" + escape_html(text.description) + "</p>";
  page += "<p class=\"soft\">Retort report of the run folder " +
          escape_html(place.filename().string()) + "</p>\n";
  for (const std::string& note : results.notes)
    page += "<p class=\"note\">" + escape_html(note) + "</p>";
  page += results_section(results) +
          "<h2>Curves</h2><p class=\"soft\">Lines are means over seeds, bands their least and "
          "greatest value; a seed that stopped early keeps its last one.</p><div class=\"charts\">";
  page += curve_charts(results, "accuracy", &ArmResult::accuracy) +
          curve_charts(results, "loss", &ArmResult::loss) + "</div>\n";
  const std::string curricula = curriculum_charts(folder);
  if (!curricula.empty())
    page += "<h2>Curriculum</h2><div class=\"charts\">" + curricula + "</div>\n";
  page +=
      "<h2>Schedules and throughput</h2><p class=\"soft\">First seed of each arm.</p><div "
      "class=\"charts\">" +
      schedule_chart(results, "Teacher reliance (lambda)", "lambda", &ArmResult::lambda) +
      schedule_chart(results, "Temperature", "tau", &ArmResult::temperature) +
      schedule_chart(results, "Throughput", "samples per second", &ArmResult::samples_per_s) +
      "</div>\n";
  page += costs_section(results);
  if (fs::exists(folder / "recipe.resolved.toml"))
    page += "<h2>Recipe</h2><details><summary>Every value, with its origin</summary><pre>" +
            escape_html(read_text(folder / "recipe.resolved.toml")) + "</pre></details>\n";
  write_safely(folder / "report.html", page + "</body></html>\n");
}

std::string results_table(const fs::path& folder) {
  return results_to_text(gather_results(read_run_log(folder / "metrics.jsonl")));
}

}  // namespace retort::tools
