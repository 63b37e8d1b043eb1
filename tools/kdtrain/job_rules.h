// What a job does about an evaluation: whether it is done, whether its weights are the best so far.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "distill/metrics/metric.h"
#include "distill/metrics/metrics_of_rows.h"
#include "engine/io/json.h"
#include "tools/kdtrain/recipe.h"

namespace retort::tools {

/// What one evaluation split gave.
struct Evaluated {
  distill::Metrics metrics;
  std::int64_t rows = 0;
  double seconds = 0;

  double value(const std::string& name) const {
    for (const auto& [key, value] : metrics)
      if (key == name) return value;
    return std::nan("");
  }
};

/// When an arm is done before its last step: train.stop_at and train.stop_at_accuracy.
class StopRules {
 public:
  explicit StopRules(const Settings& s) {
    if (const double least = s.number("train.stop_at_accuracy"); least > 0)
      rules_.push_back({{"accuracy", true, least}, name_of("steps_to_%g", least)});
    if (const auto rule = parse_stop_rule(s.text("train.stop_at")))
      rules_.push_back(
          {*rule, rule->metric == "accuracy"
                      ? name_of("steps_to_%g", rule->value)
                      : name_of(("steps_to_" + rule->metric + "_%g").c_str(), rule->value)});
  }
  /// Notes what an evaluation at this step reached. True if a rule was met for the first time.
  bool notice(const Evaluated& evaluated, std::int64_t step) {
    bool met = false;
    for (Rule& rule : rules_) {
      const double value = evaluated.value(rule.rule.metric);
      const bool there = rule.rule.at_least ? value >= rule.rule.value : value <= rule.rule.value;
      if (!there || rule.step >= 0) continue;
      rule.step = step;
      met = true;
    }
    return met;
  }
  /// The cap counts as the value where a rule was never met.
  void add_metrics(std::int64_t cap, distill::Metrics* metrics) const {
    for (const Rule& rule : rules_)
      metrics->emplace_back(rule.name, static_cast<double>(rule.step < 0 ? cap : rule.step));
  }
  Json json() const {
    Json out = Json::array();
    for (const Rule& rule : rules_) out.push(rule.step);
    return out;
  }
  void restore(const Json& json) {
    RETORT_CHECK_AS(kBadInput, json.items().size() == rules_.size(),
                    "[resume] the checkpoint has other stop rules");
    for (std::size_t i = 0; i < rules_.size(); ++i) rules_[i].step = json.items()[i].as_integer();
  }

 private:
  struct Rule {
    StopRule rule;
    std::string name;
    std::int64_t step = -1;
  };
  static std::string name_of(const char* format, double value) {
    char text[96];
    std::snprintf(text, sizeof text, format, value);
    return text;
  }
  std::vector<Rule> rules_;
};

/// train.keep_best: the metric by which the weights of the best evaluation are kept.
class BestSoFar {
 public:
  explicit BestSoFar(std::string metric) : metric_(std::move(metric)) {
    const distill::MetricKind* const kind = distill::parse_metric_name(metric_).kind;
    higher_ = kind != nullptr && kind->better == distill::Better::kHigher;
  }
  /// True if this is a value of the metric that is better than all before; of equal ones the first.
  bool notice(const std::string& metric, double value) {
    if (metric != metric_ || std::isnan(value)) return false;
    if (!std::isnan(value_) && (higher_ ? value <= value_ : value >= value_)) return false;
    value_ = value;
    return true;
  }
  Json json() const {
    Json out = Json::object();
    if (!std::isnan(value_)) out.set("metric", metric_).set("value", value_);
    return out;
  }
  /// Of another metric nothing is known yet.
  void restore(const Json& json) {
    if (const Json* of = json.find("metric"); of != nullptr && of->as_string() == metric_)
      value_ = json.at("value").as_number();
  }

 private:
  std::string metric_;
  bool higher_ = false;
  double value_ = std::nan("");
};

}  // namespace retort::tools
