#include "tools/report/results.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <limits>
#include <set>

#include "kernels/common/check.h"
#include "tools/report/svg.h"

namespace retort::tools {
namespace {

bool is_accuracy(const std::string& metric) {
  return metric.size() >= 8 && metric.ends_with("accuracy");
}

std::string json_number(double value) {
  if (!std::isfinite(value)) return "null";
  char text[32];
  std::snprintf(text, sizeof text, "%.10g", value);
  return text;
}

std::string json_text(const std::string& value) {
  std::string out = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", c);
      out += code;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

// Values of one curve by seed and x, before they are averaged over seeds.
using Points = std::map<double, std::map<double, double>>;

// Between its points a seed has the last one's value, and finished seeds keep theirs to the end:
// without it the mean would jump wherever one seed has a point of its own or stops early.
Curve averaged(const Points& points, const std::vector<double>& finished) {
  std::map<double, std::vector<double>> by_x;
  for (const auto& [seed, values] : points)
    for (const auto& [x, value] : values) by_x[x];
  for (const auto& [seed, values] : points) {
    const bool to_the_end = std::find(finished.begin(), finished.end(), seed) != finished.end();
    for (auto at = by_x.lower_bound(values.begin()->first); at != by_x.end(); ++at) {
      if (!to_the_end && at->first > values.rbegin()->first) break;
      at->second.push_back(std::prev(values.upper_bound(at->first))->second);
    }
  }
  Curve curve;
  for (const auto& [x, values] : by_x) {
    double sum = 0, low = std::numeric_limits<double>::infinity(), high = -low;
    for (const double v : values) {
      sum += v;
      low = std::min(low, v);
      high = std::max(high, v);
    }
    curve.x.push_back(x);
    curve.mean.push_back(sum / static_cast<double>(values.size()));
    curve.low.push_back(low);
    curve.high.push_back(high);
  }
  return curve;
}

// Throughput and shares of many training lines, each weighted by its time.
struct StepTotals {
  double samples = 0, seconds = 0, shared_seconds = 0, last_step = 0, last_seed = -1;
  std::map<std::string, double> phases;  // seconds

  // Samples of a line are not logged; the time per step is, up to the constant batch.
  void add(const LogRecord& record) {
    const double seed = record.number("seed").value_or(0), step = record.number("step").value_or(0);
    const double steps = seed == last_seed && step > last_step ? step - last_step : step;
    last_seed = seed;
    last_step = step;
    const double rate = record.number("samples_per_s").value_or(0);
    if (!(rate > 0) || !(steps > 0)) return;
    samples += steps;
    seconds += steps / rate;
    if (!record.number("share_update")) return;
    shared_seconds += steps / rate;
    for (const auto& [key, share] : record.numbers)
      if (key.starts_with("share_"))
        phases[key.substr(std::string("share_").size())] += share * steps / rate;
  }
  StepSummary mean() const {
    StepSummary summary;
    if (seconds > 0) summary.samples_per_s = samples / seconds;
    for (const auto& [phase, time] : phases) summary.shares[phase] = time / shared_seconds;
    return summary;
  }
};

struct Gathering {
  ArmResult result;
  StepTotals steps;
  std::map<std::string, Points> accuracy, loss;
  double first_seed = std::numeric_limits<double>::quiet_NaN();
};

void add_point(Curve& curve, double x, const std::optional<double>& y) {
  if (!y) return;
  curve.x.push_back(x);
  curve.mean.push_back(*y);
}

// "memory_activations_mib" -> "activations".
std::string role_of(const std::string& key) {
  const std::size_t begin = std::string("memory_").size();
  return key.ends_with("_mib") && key.size() > begin + 4 ? key.substr(begin, key.size() - begin - 4)
                                                         : key.substr(begin);
}

void add_final(ArmResult& arm, const LogRecord& record) {
  arm.finished = true;
  arm.seeds.push_back(record.number("seed").value_or(0));
  const std::size_t count = arm.seeds.size();
  for (const auto& [key, value] : record.numbers) {
    if (key == "seed" || key == "epoch" || key == "step" || key == "wall_s" || key == "parameters")
      continue;
    if (key.starts_with("memory_")) {  // what the arm cost, not how good it is
      double& peak = arm.memory_mib[key == "memory_mib" ? "total" : role_of(key)];
      peak = std::max(peak, value);
      continue;
    }
    auto& values = arm.metrics[key];
    values.resize(count - 1, std::numeric_limits<double>::quiet_NaN());
    values.push_back(value);
  }
  for (auto& [key, values] : arm.metrics)
    values.resize(count, std::numeric_limits<double>::quiet_NaN());
  arm.parameters = record.number("parameters").value_or(arm.parameters);
  arm.wall_s += record.number("wall_s").value_or(0);
}

std::vector<double> finite(const std::vector<double>& values) {
  std::vector<double> kept;
  for (const double v : values)
    if (std::isfinite(v)) kept.push_back(v);
  return kept;
}

std::string summary_json(const Summary& s) {
  return "\"n\":" + std::to_string(s.n) + ",\"mean\":" + json_number(s.mean) +
         ",\"sd\":" + json_number(s.sd) + ",\"median\":" + json_number(s.median) +
         ",\"low95\":" + json_number(s.low95) + ",\"high95\":" + json_number(s.high95);
}

std::string arm_json(const ArmResult& arm) {
  std::string out = "{\"name\":" + json_text(arm.name) + ",\"label\":" + json_text(arm.shown()) +
                    ",\"finished\":" + (arm.finished ? "true" : "false") +
                    ",\"n\":" + std::to_string(arm.seeds.size()) + ",\"seeds\":[";
  for (std::size_t i = 0; i < arm.seeds.size(); ++i)
    out += (i ? "," : "") + json_number(arm.seeds[i]);
  out += "],\"parameters\":" + json_number(arm.parameters) +
         ",\"wall_s\":" + json_number(arm.wall_s) +
         ",\"samples_per_s\":" + json_number(arm.steps.samples_per_s) + ",\"shares\":{";
  bool first = true;
  const auto numbers = [&](const std::map<std::string, double>& values) {
    for (const auto& [name, value] : values) {
      out += (first ? "" : ",") + json_text(name) + ":" + json_number(value);
      first = false;
    }
    first = true;
  };
  numbers(arm.steps.shares);
  out += "},\"memory_mib\":{";
  numbers(arm.memory_mib);
  out += "},\"metrics\":{";
  for (const auto& [name, values] : arm.metrics) {
    out += (first ? "" : ",") + json_text(name) + ":{" + summary_json(summarize(finite(values))) +
           ",\"values\":[";
    for (std::size_t i = 0; i < values.size(); ++i) out += (i ? "," : "") + json_number(values[i]);
    out += "]}";
    first = false;
  }
  return out + "}}";
}

}  // namespace

RunResults gather_results(const std::vector<LogRecord>& log) {
  RunResults results;
  std::vector<std::string> order;
  std::map<std::string, Gathering> arms;
  std::set<std::string> metric_names;
  std::vector<std::string> note_order;  // by text, each once, with the arms that it is of
  std::map<std::string, std::vector<std::string>> notes;
  for (const LogRecord& record : log)
    if (record.number("epoch").value_or(0) >= 2) results.x_is_epoch = true;
  for (const LogRecord& record : log) {
    const std::string name = record.text("arm"), split = record.text("split");
    if (split == "note") {
      const std::string& text = record.text("text");
      if (!notes.contains(text)) note_order.push_back(text);
      std::vector<std::string>& of = notes[text];
      if (std::find(of.begin(), of.end(), name) == of.end()) of.push_back(name);
      continue;
    }
    if (name.empty()) continue;
    if (!arms.contains(name)) order.push_back(name);
    Gathering& arm = arms[name];
    arm.result.name = name;
    if (split == "final") {
      add_final(arm.result, record);
      continue;
    }
    const double seed = record.number("seed").value_or(0), step = record.number("step").value_or(0);
    const double x = results.x_is_epoch && record.number("epoch") ? *record.number("epoch") : step;
    if (std::isnan(arm.first_seed)) arm.first_seed = seed;
    if (split == "train") {
      arm.steps.add(record);
      if (seed == arm.first_seed) {
        add_point(arm.result.lambda, step, record.number("lambda"));
        add_point(arm.result.temperature, step, record.number("temperature"));
        add_point(arm.result.samples_per_s, step, record.number("samples_per_s"));
      }
    } else if (const auto accuracy = record.number("accuracy")) {
      arm.accuracy[split][seed][x] = *accuracy;
    }
    if (const auto loss = record.number("loss")) arm.loss[split][seed][x] = *loss;
  }
  for (const std::string& text : note_order) {
    std::string of;
    for (const std::string& name : notes[text])
      if (!name.empty()) of += (of.empty() ? "" : ", ") + name;
    results.notes.push_back((of.empty() ? "" : of + ": ") + text);
  }
  for (const std::string& name : order) {
    Gathering& arm = arms[name];
    const std::vector<double>& seeds = arm.result.seeds;
    for (const auto& [split, points] : arm.accuracy)
      arm.result.accuracy[split] = averaged(points, seeds);
    for (const auto& [split, points] : arm.loss) arm.result.loss[split] = averaged(points, seeds);
    arm.result.steps = arm.steps.mean();
    const bool teacher = name == "teacher" || name.starts_with("teacher/");  // in a task
    if (!teacher)
      for (const auto& [metric, values] : arm.result.metrics) metric_names.insert(metric);
    (teacher ? results.teachers : results.arms).push_back(std::move(arm.result));
  }
  // What people look for first stands first: accuracies, then losses and steps, then the rest.
  results.metric_names.assign(metric_names.begin(), metric_names.end());
  const auto place = [](const std::string& metric) {
    return metric.ends_with("accuracy") || metric.starts_with("steps_to") ? 0
           : metric.ends_with("loss")                                     ? 1
                                                                          : 2;
  };
  std::stable_sort(results.metric_names.begin(), results.metric_names.end(),
                   [&](const std::string& a, const std::string& b) { return place(a) < place(b); });
  if (results.arms.empty()) return results;
  results.baseline = results.arms[0].name;
  for (const ArmResult& arm : results.arms)
    if (arm.name == "unguided" || arm.name == "one_shot") results.baseline = arm.name;
  const ArmResult& base =
      *std::find_if(results.arms.begin(), results.arms.end(),
                    [&](const ArmResult& a) { return a.name == results.baseline; });
  for (const ArmResult& arm : results.arms) {
    if (arm.name == results.baseline) continue;
    for (const auto& [metric, values] : arm.metrics) {
      const auto it = base.metrics.find(metric);
      if (it == base.metrics.end()) continue;
      std::vector<double> differences;
      for (std::size_t i = 0; i < arm.seeds.size(); ++i)
        for (std::size_t j = 0; j < base.seeds.size(); ++j)
          if (arm.seeds[i] == base.seeds[j] && std::isfinite(values[i]) &&
              std::isfinite(it->second[j]))
            differences.push_back(values[i] - it->second[j]);
      if (!differences.empty())
        results.paired.push_back({arm.name, metric, summarize(differences)});
    }
  }
  return results;
}

std::string results_to_json(const RunResults& results) {
  std::string out = "{\"baseline\":" + json_text(results.baseline) + ",\n\"teachers\":[";
  for (std::size_t i = 0; i < results.teachers.size(); ++i)
    out += (i ? ",\n" : "\n") + arm_json(results.teachers[i]);
  out += "],\n\"arms\":[";
  for (std::size_t i = 0; i < results.arms.size(); ++i)
    out += (i ? ",\n" : "\n") + arm_json(results.arms[i]);
  out += "],\n\"paired_differences\":[";
  for (std::size_t i = 0; i < results.paired.size(); ++i)
    out += (i ? ",\n" : "\n") + ("{\"arm\":" + json_text(results.paired[i].arm) +
                                 ",\"metric\":" + json_text(results.paired[i].metric) + "," +
                                 summary_json(results.paired[i].summary) + "}");
  out += "],\n\"notes\":[";
  for (std::size_t i = 0; i < results.notes.size(); ++i)
    out += (i ? "," : "") + json_text(results.notes[i]);
  return out + "]}\n";
}

std::string format_metric(const std::string& metric, const Summary& s) {
  if (s.n == 0) return "-";
  char text[96];
  const bool percent = is_accuracy(metric);
  const double scale = percent ? 100 : 1, half = scale * (s.high95 - s.mean);
  const int digits = percent ? 2 : std::abs(s.mean) >= 100 ? 0 : 4;
  if (std::abs(s.mean) >= 1e7)  // a model that has run away
    return short_number(s.mean) + (s.n < 2 ? "" : " +- " + short_number(half));
  if (s.n < 2) {
    std::snprintf(text, sizeof text, "%.*f%s", digits, scale * s.mean, percent ? " %" : "");
  } else {
    std::snprintf(text, sizeof text, "%.*f%s +- %.*f", digits, scale * s.mean, percent ? " %" : "",
                  digits, half);
  }
  return text;
}

std::string results_to_text(const RunResults& results) {
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> head{"arm", "n"};
  std::vector<std::string> shown;
  for (const std::string& metric : results.metric_names) {
    if (!compares_arms(metric)) continue;
    shown.push_back(metric);
    head.push_back(metric);
    if (metric.starts_with("steps_to")) head.push_back("median");
  }
  rows.push_back(head);
  const auto add = [&](const ArmResult& arm) {
    std::vector<std::string> row{arm.name, std::to_string(arm.seeds.size())};
    for (const std::string& metric : shown) {
      const auto it = arm.metrics.find(metric);
      const Summary s = it == arm.metrics.end() ? Summary{} : summarize(finite(it->second));
      row.push_back(format_metric(metric, s));
      if (metric.starts_with("steps_to"))
        row.push_back(s.n ? std::to_string(std::llround(s.median)) : "-");
    }
    rows.push_back(row);
  };
  for (const ArmResult& teacher : results.teachers) add(teacher);
  for (const ArmResult& arm : results.arms) add(arm);
  std::vector<std::size_t> width(head.size());
  for (const auto& row : rows)
    for (std::size_t c = 0; c < row.size(); ++c) width[c] = std::max(width[c], row[c].size());
  std::string out;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t c = 0; c < rows[r].size(); ++c) {
      const std::string pad(width[c] - rows[r][c].size(), ' ');
      out += c == 0 ? rows[r][c] + pad : "  " + pad + rows[r][c];
    }
    out += '\n';
  }
  if (results.arms.size() > 0 && results.arms[0].seeds.size() > 1)
    out += "+- : half of the 95 % interval of the mean (Student's t over seeds)\n";
  return out;
}

}  // namespace retort::tools
