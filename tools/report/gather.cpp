#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <set>

#include "tools/report/results.h"

namespace retort::tools {
namespace {

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
  std::map<std::string, std::map<std::string, Points>> points;  // by kind, set
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

// An arm that was taken up again may have failed before it finished.
void forget_what_was_made_up_for(ArmResult& arm) {
  const auto finished = [&](const Failure& f) {
    return std::find(arm.seeds.begin(), arm.seeds.end(), f.seed) != arm.seeds.end();
  };
  std::erase_if(arm.failures, finished);
}

void add_evaluation(Gathering& arm, const LogRecord& record, const std::string& set, double seed,
                    double x) {
  if (const auto rows = record.number("n")) arm.result.rows[set] = *rows;
  for (const auto& [key, value] : record.numbers)
    if (const distill::MetricKind* kind = distill::find_metric(key); kind && kind->curve)
      arm.points[key][set][seed][x] = value;
}

void add_note(std::vector<Note>* notes, const std::string& arm, const std::string& text) {
  auto note = std::find_if(notes->begin(), notes->end(),
                           [&](const Note& other) { return other.text == text; });
  if (note == notes->end()) note = notes->insert(note, Note{{}, text});
  std::vector<std::string>& arms = note->arms;
  if (!arm.empty() && std::find(arms.begin(), arms.end(), arm) == arms.end()) arms.push_back(arm);
}

// By the table of kinds, then sets as they were met, then by name.
std::vector<MetricText> in_order(const std::set<std::string>& names,
                                 const std::vector<std::string>& sets) {
  std::vector<MetricText> metrics(names.begin(), names.end());
  const auto place = [&](const MetricText& m) {
    return std::pair(m.place, std::find(sets.begin(), sets.end(), m.set) - sets.begin());
  };
  std::stable_sort(metrics.begin(), metrics.end(),
                   [&](const MetricText& a, const MetricText& b) { return place(a) < place(b); });
  return metrics;
}

std::string baseline_of(const std::vector<ArmResult>& arms, const std::string& wanted) {
  if (!wanted.empty()) return wanted;
  std::string baseline = arms.empty() ? "" : arms[0].name;
  for (const ArmResult& arm : arms)
    if (arm.name == "unguided" || arm.name == "one_shot") baseline = arm.name;
  return baseline;
}

std::vector<double> differences(const ArmResult& arm, const ArmResult& base,
                                const std::string& metric) {
  std::vector<double> all;
  const auto a = arm.metrics.find(metric), b = base.metrics.find(metric);
  if (a == arm.metrics.end() || b == base.metrics.end()) return all;
  for (std::size_t i = 0; i < arm.seeds.size(); ++i)
    for (std::size_t j = 0; j < base.seeds.size(); ++j)
      if (arm.seeds[i] == base.seeds[j] && std::isfinite(a->second[i]) &&
          std::isfinite(b->second[j]))
        all.push_back(a->second[i] - b->second[j]);
  return all;
}

std::vector<PairedDifference> paired_differences(const RunResults& results) {
  std::vector<PairedDifference> paired;
  const ArmResult* const base = results.arm(results.baseline);
  if (!base) return paired;  // it has not begun
  for (const ArmResult& arm : results.arms) {
    if (arm.name == base->name) continue;
    for (const auto& [metric, values] : arm.metrics)
      if (const auto d = differences(arm, *base, metric); !d.empty()) {
        const Summary s = summarize(d);
        paired.push_back({arm.name, metric, s, t_test(s), 0});
      }
  }
  std::map<std::string, std::vector<std::size_t>> families;
  for (std::size_t i = 0; i < paired.size(); ++i) families[paired[i].metric].push_back(i);
  for (const auto& [metric, members] : families) {
    std::vector<double> p;
    for (const std::size_t i : members) p.push_back(paired[i].p);
    p = holm(p);
    for (std::size_t k = 0; k < members.size(); ++k) paired[members[k]].p_holm = p[k];
  }
  return paired;
}

}  // namespace

std::vector<double> ArmResult::finite(const std::string& metric) const {
  std::vector<double> kept;
  if (const auto at = metrics.find(metric); at != metrics.end())
    for (const double v : at->second)
      if (std::isfinite(v)) kept.push_back(v);
  return kept;
}

ShownInterval ArmResult::interval(const MetricText& metric) const {
  const auto at = rows.find(metric.set);
  return shown_interval(metric, summary(metric.name), at == rows.end() ? 0 : at->second);
}

const ArmResult* RunResults::arm(const std::string& name) const {
  for (const ArmResult& arm : arms)
    if (arm.name == name) return &arm;
  return nullptr;
}

std::string RunResults::note_text(const Note& note, bool with_labels) const {
  std::string of;
  for (const std::string& name : note.arms) {
    const ArmResult* const one = with_labels ? arm(name) : nullptr;
    of += (of.empty() ? "" : ", ") + (one ? one->shown() : name);
  }
  return (of.empty() ? "" : of + ": ") + note.text;
}

RunResults gather_results(const std::vector<LogRecord>& log, const ReportText& text) {
  RunResults results;
  std::vector<std::string> order;
  std::map<std::string, Gathering> arms;
  std::set<std::string> metric_names;
  bool epochs = false, steps_are_results = false;
  for (const LogRecord& record : log) {
    epochs |= record.number("epoch").value_or(0) >= 2;
    if (record.text("split") != "final") continue;
    for (const auto& [key, value] : record.numbers)
      if (const auto* kind = distill::find_metric(key))
        steps_are_results |= kind->unit == distill::Unit::kSteps;
  }
  results.x_is_epoch = epochs && !steps_are_results;
  for (const LogRecord& record : log) {
    const std::string name = record.text("arm"), split = record.text("split");
    if (split == "note") {
      add_note(&results.notes, name, record.text("text"));
      continue;
    }
    if (name.empty()) continue;
    if (!arms.contains(name)) order.push_back(name);
    Gathering& arm = arms[name];
    arm.result.name = name;
    const double seed = record.number("seed").value_or(0), step = record.number("step").value_or(0);
    if (split == "final") {
      add_final(arm.result, record);
      continue;
    }
    if (split == "failed") {
      arm.result.failures.push_back({seed, step, record.text("reason")});
      continue;
    }
    const double x = results.x_is_epoch && record.number("epoch") ? *record.number("epoch") : step;
    if (std::isnan(arm.first_seed)) arm.first_seed = seed;
    if (split != "train") {
      if (std::find(results.sets.begin(), results.sets.end(), split) == results.sets.end())
        results.sets.push_back(split);
      add_evaluation(arm, record, split, seed, x);
      continue;
    }
    arm.steps.add(record);
    if (const auto loss = record.number("loss")) arm.points["loss"][split][seed][x] = *loss;
    if (seed != arm.first_seed) continue;
    add_point(arm.result.lambda, step, record.number("lambda"));
    add_point(arm.result.temperature, step, record.number("temperature"));
    add_point(arm.result.samples_per_s, step, record.number("samples_per_s"));
  }
  for (const std::string& name : order) {
    Gathering& arm = arms[name];
    if (const auto at = text.labels.find(name); at != text.labels.end())
      arm.result.label = at->second;
    forget_what_was_made_up_for(arm.result);
    for (const auto& [kind, sets] : arm.points)
      for (const auto& [set, points] : sets)
        arm.result.curves[kind][set] = averaged(points, arm.result.seeds);
    arm.result.steps = arm.steps.mean();
    const bool teacher = name == "teacher" || name.starts_with("teacher/");  // in a task
    if (!teacher)
      for (const auto& [metric, values] : arm.result.metrics) metric_names.insert(metric);
    (teacher ? results.teachers : results.arms).push_back(std::move(arm.result));
  }
  results.metrics = in_order(metric_names, results.sets);
  results.baseline = baseline_of(results.arms, text.baseline);
  results.paired = paired_differences(results);
  return results;
}

}  // namespace retort::tools
