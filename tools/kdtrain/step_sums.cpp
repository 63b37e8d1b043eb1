#include "tools/kdtrain/step_sums.h"

#include <cmath>

namespace retort::tools {
namespace {

// What the final line tells of all steps.
constexpr const char* kOfAll[] = {"fraction_clamped"};

Json json_of(const distill::StepNumbers& numbers) {
  Json columns = Json::array();
  for (const auto& column : numbers.columns()) {
    Json one = Json::array();
    one.push(column.name).push(column.sum).push(column.weight);
    columns.push(std::move(one));
  }
  Json out = Json::object();
  out.set("steps", numbers.steps).set("samples", numbers.samples).set("rows", numbers.rows);
  return out.set("columns", std::move(columns));
}

distill::StepNumbers numbers_of(const Json& json) {
  distill::StepNumbers numbers;
  numbers.steps = json.at("steps").as_integer();
  numbers.samples = json.at("samples").as_integer();
  numbers.rows = json.at("rows").as_integer();
  for (const Json& one : json.at("columns").items()) {
    const std::vector<Json>& parts = one.items();
    RETORT_CHECK_AS(kBadInput, parts.size() == 3, "[step_sums] expected name, sum and weight");
    numbers.add(parts[0].as_string(), parts[1].as_number(), parts[2].as_number());
  }
  return numbers;
}

}  // namespace

std::optional<StepSums::NotFinite> StepSums::fold(const std::vector<distill::StepNumbers>& steps) {
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const distill::StepNumbers& step = steps[i];
    if (!std::isfinite(step.loss()))
      return NotFinite{steps.size() - 1 - i, step.loss(), step.bad_slice};
    recent_ += step;
    for (const char* name : kOfAll)
      if (step.has(name)) told_.add(name, step.sum(name), 1);
  }
  return std::nullopt;
}

double StepSums::mean_of_all(const char* name) const {
  return told_.has(name) ? told_.mean(name) : 0;
}

Json StepSums::json() const {
  Json out = Json::object();
  return out.set("recent", json_of(recent_)).set("all", json_of(told_));
}

StepSums StepSums::of(const Json& json) {
  StepSums s;
  s.recent_ = numbers_of(json.at("recent"));
  s.told_ = numbers_of(json.at("all"));
  return s;
}

}  // namespace retort::tools
