#include "tools/kdtrain/step_sums.h"

#include <cmath>

namespace retort::tools {

std::optional<StepSums::NotFinite> StepSums::fold() {
  for (std::size_t i = 0; i < waiting_.size(); ++i) {
    const distill::StepStatistics step = waiting_[i].report.host();
    if (!std::isfinite(step.loss)) return NotFinite{waiting_.size() - 1 - i, step.loss};
    const double n = static_cast<double>(step.samples);
    loss_ += step.loss;
    ce_ += step.loss_ce * n;
    kd_ += step.loss_kd * n;
    lambda_ += waiting_[i].lambda;
    correct_ += std::round(step.accuracy * n);
    teacher_correct_ += std::round(step.teacher_accuracy * n);
    steps_ += 1;
    samples_ += step.samples;
  }
  waiting_.clear();
  return std::nullopt;
}

Json StepSums::json() const {
  Json out = Json::object();
  out.set("loss", loss_).set("ce", ce_).set("kd", kd_).set("lambda", lambda_);
  out.set("correct", correct_).set("teacher_correct", teacher_correct_);
  out.set("steps", steps_).set("samples", samples_);
  return out;
}

StepSums StepSums::of(const Json& json) {
  StepSums s;
  s.loss_ = json.at("loss").as_number();
  s.ce_ = json.at("ce").as_number();
  s.kd_ = json.at("kd").as_number();
  s.lambda_ = json.at("lambda").as_number();
  s.correct_ = json.at("correct").as_number();
  s.teacher_correct_ = json.at("teacher_correct").as_number();
  s.steps_ = json.at("steps").as_integer();
  s.samples_ = json.at("samples").as_integer();
  return s;
}

}  // namespace retort::tools
