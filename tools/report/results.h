// The numbers of a run, gathered from its log: what results.json and the page show.
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "tools/report/report.h"
#include "tools/report/run_log.h"

namespace retort::tools {

/// One curve of one arm: mean, least and greatest over seeds at each x (an epoch, or a step).
struct Curve {
  std::vector<double> x, mean, low, high;
};

/// What training steps cost on average: of all training lines, weighted by their time.
struct StepSummary {
  double samples_per_s = 0;
  std::map<std::string, double> shares;  // of the time, by phase of the step; empty: not measured
};

struct ArmResult {
  std::string name, label;    // label: as people read it; "" = the name
  std::vector<double> seeds;  // finished ones, in order of appearance
  std::map<std::string, std::vector<double>>
      metrics;  // by metric, one value per finished seed (NaN: none)
  double parameters = 0;
  double wall_s = 0;  // sum over seeds
  StepSummary steps;
  /// Largest peak over seeds by role, and "total"; of the process, jobs side by side included.
  std::map<std::string, double> memory_mib;
  bool finished = false;
  const std::string& shown() const { return label.empty() ? name : label; }
  std::map<std::string, Curve> accuracy, loss;  // by split
  Curve lambda, temperature, samples_per_s;     // of the first seed, by step
};

struct PairedDifference {
  std::string arm, metric;
  Summary summary;  // of (arm - baseline), over seeds both have
};

struct RunResults {
  std::vector<ArmResult> arms;      // students, in order of appearance
  std::vector<ArmResult> teachers;  // usually one
  std::string baseline;
  bool x_is_epoch = false;
  std::vector<PairedDifference> paired;
  std::vector<std::string> notes;  // "arm, arm: text", each text once
  std::vector<std::string> metric_names;
};

RunResults gather_results(const std::vector<LogRecord>& log);
std::string results_to_json(const RunResults& results);
std::string results_to_text(const RunResults& results);

/// What arms are compared by. The rest says how they were taught, and stands apart.
inline bool compares_arms(const std::string& metric) {
  return !metric.ends_with("teacher_agreement") && metric != "fraction_clamped";
}

/// "0.8412 +- 0.0031" by a metric's name: accuracies in percent.
std::string format_metric(const std::string& metric, const Summary& summary);

}  // namespace retort::tools
