// results.json, and the table at the end of a run.
#include "tools/report/results.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "distill/metrics/binomial.h"

namespace retort::tools {
namespace {

// Ten digits, as people read them; null for what is not finite; whole numbers without a point.
Json number(double value) {
  if (!std::isfinite(value)) return {};
  char text[40];
  const auto end =
      std::to_chars(text, text + sizeof text, value, std::chars_format::general, 10).ptr;
  std::from_chars(text, end, value);
  if (std::floor(value) == value && std::abs(value) < 1e15) return static_cast<std::int64_t>(value);
  return value;
}

Json numbers(const std::vector<double>& values) {
  Json all = Json::array();
  for (const double value : values) all.push(number(value));
  return all;
}

Json numbers(const std::map<std::string, double>& values) {
  Json all = Json::object();
  for (const auto& [name, value] : values) all.set(name, number(value));
  return all;
}

void set_summary(Json* to, const Summary& s) {
  to->set("n", s.n).set("mean", number(s.mean)).set("sd", number(s.sd));
  to->set("median", number(s.median));
  to->set("low95", number(s.low95)).set("high95", number(s.high95));
}

const char* name_of(ShownInterval::Kind kind) {
  switch (kind) {
    case ShownInterval::Kind::kWilson: return "wilson";
    case ShownInterval::Kind::kStudent: return "student_t";
    case ShownInterval::Kind::kStudentCut: return "student_t_cut";
    case ShownInterval::Kind::kNone: return "none";
  }
  return "none";
}

Json metric_json(const ArmResult& arm, const std::string& name) {
  const MetricText text(name);
  Json metric = Json::object();
  const Summary s = arm.summary(name);
  set_summary(&metric, s);
  metric.set("values", numbers(arm.metrics.at(name)));
  const ShownInterval interval = arm.interval(text);
  if (interval.kind == ShownInterval::Kind::kNone) return metric;
  Json shown = Json::object();
  shown.set("kind", name_of(interval.kind));
  shown.set("low", number(interval.low)).set("high", number(interval.high));
  metric.set("interval95", shown);
  if (interval.kind != ShownInterval::Kind::kWilson) return metric;
  const auto rows = std::llround(arm.rows.at(text.set));
  const auto exact =
      distill::clopper_pearson(std::llround(s.mean * static_cast<double>(rows)), rows);
  metric.set("rows", std::int64_t{rows});
  metric.set("exact95", numbers(std::vector<double>{exact.low, exact.high}));
  return metric;
}

Json arm_json(const ArmResult& arm) {
  Json json = Json::object();
  json.set("name", arm.name).set("label", arm.shown()).set("finished", arm.finished);
  json.set("n", static_cast<std::int64_t>(arm.seeds.size())).set("seeds", numbers(arm.seeds));
  Json failed = Json::array();
  for (const Failure& f : arm.failures) {
    Json one = Json::object();
    failed.push(
        one.set("seed", number(f.seed)).set("step", number(f.step)).set("reason", f.reason));
  }
  json.set("failed", failed);
  json.set("parameters", number(arm.parameters)).set("wall_s", number(arm.wall_s));
  json.set("samples_per_s", number(arm.steps.samples_per_s));
  json.set("shares", numbers(arm.steps.shares)).set("memory_mib", numbers(arm.memory_mib));
  Json metrics = Json::object();
  for (const auto& [name, values] : arm.metrics) metrics.set(name, metric_json(arm, name));
  return json.set("metrics", metrics);
}

Json difference_json(const PairedDifference& d) {
  Json json = Json::object();
  json.set("arm", d.arm).set("metric", d.metric);
  set_summary(&json, d.summary);
  return json.set("p", number(d.p)).set("p_holm", number(d.p_holm));
}

Json kinds_json(const RunResults& results) {
  Json kinds = Json::object();
  for (const MetricText& metric : results.metrics) {
    const distill::Better better = metric.kind.better;
    Json kind = Json::object();
    kind.set("label", metric.label).set("unit", metric.unit());
    if (better != distill::Better::kNeither)
      kind.set("better", better == distill::Better::kHigher ? "higher" : "lower");
    kinds.set(metric.name, kind);
  }
  return kinds;
}

// One element a line, so that people find their way.
template <class T, class F>
std::string lines(const std::vector<T>& all, F&& json_of) {
  std::string out = "[";
  for (std::size_t i = 0; i < all.size(); ++i) out += (i ? ",\n" : "\n") + json_of(all[i]).dump();
  return out + "]";
}

std::string failures_text(const std::vector<ArmResult>& arms) {
  std::string out;
  for (const ArmResult& arm : arms)
    for (const Failure& f : arm.failures)
      out += "failed: " + arm.name + ", seed " + short_number(f.seed) + ", step " +
             short_number(f.step) + ": " + f.reason + "\n";
  return out;
}

// What the intervals of the table are, each kind that occurs once.
std::string legend(const RunResults& results, const std::vector<const MetricText*>& shown) {
  bool wilson = false, student = false, cut = false;
  for (const auto* arms : {&results.teachers, &results.arms})
    for (const ArmResult& arm : *arms)
      for (const MetricText* metric : shown) {
        const ShownInterval::Kind kind = arm.interval(*metric).kind;
        wilson |= kind == ShownInterval::Kind::kWilson;
        student |= kind == ShownInterval::Kind::kStudent;
        cut |= kind == ShownInterval::Kind::kStudentCut;
      }
  std::string out;
  if (student) out += "+- : half of the 95 % interval of the mean (Student's t over seeds)\n";
  if (cut) out += "[] : the same interval, cut at 0 (shares, steps, times) and at 100 %\n";
  if (wilson) out += "[] : Wilson's 95 % interval of a share of rows (one seed)\n";
  return out;
}

}  // namespace

std::string results_to_json(const RunResults& results) {
  const auto arms = [](const ArmResult& arm) { return arm_json(arm); };
  std::string out = "{\"baseline\":" + json_quote(results.baseline);
  out += ",\n\"teachers\":" + lines(results.teachers, arms);
  out += ",\n\"arms\":" + lines(results.arms, arms);
  out += ",\n\"paired_differences\":" + lines(results.paired, difference_json);
  const auto notes = [&](const Note& note) { return Json(results.note_text(note, false)); };
  out += ",\n\"notes\":" + lines(results.notes, notes);
  out += ",\n\"metrics\":" + kinds_json(results).dump();
  if (!results.provenance.is_null()) out += ",\n\"provenance\":" + results.provenance.dump();
  return out + "}\n";
}

std::string results_to_text(const RunResults& results) {
  std::vector<std::string> head{"arm", "n"};
  std::vector<const MetricText*> shown;
  const auto is_steps = [](const MetricText& m) { return m.kind.unit == distill::Unit::kSteps; };
  for (const MetricText& metric : results.metrics) {
    if (!metric.kind.compares) continue;
    shown.push_back(&metric);
    head.push_back(metric.name);
    if (is_steps(metric)) head.push_back("median");
  }
  std::vector<std::vector<std::string>> rows{head};
  const auto add = [&](const ArmResult& arm) {
    std::vector<std::string> row{arm.name, std::to_string(arm.seeds.size())};
    if (!arm.failures.empty()) row[1] += " (" + std::to_string(arm.failures.size()) + " failed)";
    for (const MetricText* metric : shown) {
      const Summary s = arm.summary(metric->name);
      std::string text = number_with_interval(*metric, s, arm.interval(*metric));
      if (metric->is_share() && s.n > 0) text.insert(std::min(text.find(' '), text.size()), " %");
      row.push_back(text);
      if (is_steps(*metric)) row.push_back(s.n ? metric->number(s.median) : "-");
    }
    rows.push_back(row);
  };
  for (const ArmResult& teacher : results.teachers) add(teacher);
  for (const ArmResult& arm : results.arms) add(arm);
  std::vector<std::size_t> width(head.size());
  for (const auto& row : rows)
    for (std::size_t c = 0; c < row.size(); ++c) width[c] = std::max(width[c], row[c].size());
  std::string out;
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string pad(width[c] - row[c].size(), ' ');
      out += c == 0 ? row[c] + pad : "  " + pad + row[c];
    }
    out += '\n';
  }
  return out + legend(results, shown) + failures_text(results.teachers) +
         failures_text(results.arms);
}

}  // namespace retort::tools
