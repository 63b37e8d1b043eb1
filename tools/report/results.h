// The numbers of a run, gathered from its log: what results.json and the page show.
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "engine/io/json.h"
#include "tools/report/metric_text.h"
#include "tools/report/report.h"
#include "tools/report/run_log.h"
#include "tools/report/statistics.h"

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

/// A job that ended without a result.
struct Failure {
  double seed = 0, step = 0;
  std::string reason;
};

struct ArmResult {
  std::string name, label;    // label: as people read it; "" = the name
  std::vector<double> seeds;  // finished ones, in order of appearance
  std::vector<Failure> failures;
  /// By metric, one value per finished seed (NaN: none).
  std::map<std::string, std::vector<double>> metrics;
  std::map<std::string, double> rows;  // that metrics are means of, by set; where it was logged
  double parameters = 0;
  double wall_s = 0;  // sum over seeds
  StepSummary steps;
  /// Largest peak over seeds by role, and "total"; of the process, jobs side by side included.
  std::map<std::string, double> memory_mib;
  bool finished = false;
  /// Of kinds that are drawn, by kind and set; "train" has the loss alone.
  std::map<std::string, std::map<std::string, Curve>> curves;
  Curve lambda, temperature, samples_per_s;  // of the first seed, by step; empty: there is none

  const std::string& shown() const { return label.empty() ? name : label; }
  std::vector<double> finite(const std::string& metric) const;
  Summary summary(const std::string& metric) const { return summarize(finite(metric)); }
  ShownInterval interval(const MetricText& metric) const;
};

/// A warning, once, with the arms that it is of (none: of the run).
struct Note {
  std::vector<std::string> arms;
  std::string text;
};

struct PairedDifference {
  std::string arm, metric;
  Summary summary;    // of (arm - baseline), over seeds both have
  double p = 0;       // two-sided t test of the pairs; NaN for one pair
  double p_holm = 0;  // corrected for all arms that are compared with the baseline in this metric
};

struct RunResults {
  std::vector<ArmResult> arms;      // students, in order of appearance
  std::vector<ArmResult> teachers;  // usually one
  std::string baseline;
  bool x_is_epoch = false;
  std::vector<PairedDifference> paired;
  std::vector<Note> notes;
  /// In the order in which they are shown: by the table of kinds, sets as they were met.
  std::vector<MetricText> metrics;
  std::vector<std::string> sets;  // that were evaluated, as they were met
  Json provenance;                // null: there is none

  const ArmResult* arm(const std::string& name) const;
  /// "KD, KD-CL: text", with labels as people read them, or with the arms' names.
  std::string note_text(const Note& note, bool with_labels) const;
};

/// Takes baseline and labels from `text`.
RunResults gather_results(const std::vector<LogRecord>& log, const ReportText& text = {});
std::string results_to_json(const RunResults& results);
std::string results_to_text(const RunResults& results);

}  // namespace retort::tools
