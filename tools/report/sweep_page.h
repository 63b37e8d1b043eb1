// The trials of a sweep, as a table and as lines over one axis for each key.
#pragma once
#include <string>
#include <vector>

#include "tools/report/metric_text.h"

namespace retort::tools {

struct SweepAxis {
  std::string key, range;  // "train.lr", "log(1e-05, 0.001)"
  bool logarithmic = false;
  std::vector<std::string> choices;  // in their order; empty: numbers
};

struct SweepTrial {
  std::int64_t number = 0;          // from 1
  std::int64_t rung = 0;            // of halving, from 0
  std::string budget;               // "2 epochs"
  std::vector<std::string> values;  // one an axis, as typed
  double value = 0;                 // of the metric, a mean over seeds; NaN: it failed
  std::string failed;               // why, "": it did not
  std::string folder;               // of its run, relative to the page
};

struct SweepResults {
  std::string title;
  MetricText metric{""};
  std::vector<SweepAxis> axes;
  std::vector<SweepTrial> trials;  // the best first
};

/// One self-contained page, no scripts, nothing fetched. Lines are of each trial's last rung; the
/// best tenth stands out.
std::string sweep_page(const SweepResults& results);

/// The same table as plain text, of the first `rows` trials.
std::string sweep_table(const SweepResults& results, std::size_t rows);

}  // namespace retort::tools
