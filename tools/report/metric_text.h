// How the values of a metric are shown: what distill/metrics/metric.h says of its kind, as text.
#pragma once
#include <string>

#include "distill/metrics/metric.h"

namespace retort::tools {

/// One metric of a run by its name in the files, "test.accuracy" or "steps_to_0.99". A name of no
/// kind is a number with four digits of which nobody knows whether more is better.
struct MetricText {
  explicit MetricText(const std::string& name);

  std::string name;
  std::string set;    // "test", or ""
  std::string label;  // as people read it: "test accuracy", "steps to 99 %"
  distill::MetricKind kind;
  std::size_t place = 0;  // of its kind in the table; unknown ones stand last

  bool is_share() const { return kind.unit == distill::Unit::kShare; }
  std::string unit() const { return distill::name_of(kind.unit); }
  /// In the unit that is shown: shares in percent.
  double shown(double value) const { return is_share() ? 100 * value : value; }
  /// "84.12", without its unit; "nan", "inf".
  std::string number(double value) const;
  /// "+1.30": the same with its sign.
  std::string difference(double value) const;
  /// "test accuracy, %"; a label that names its unit stands alone: "steps to 99 %".
  std::string title() const;
};

/// A number as people write it: 4 significant digits, thousands as 12k where exact.
std::string short_number(double value);
/// The same text with a capital first letter.
std::string capital(std::string text);

}  // namespace retort::tools
