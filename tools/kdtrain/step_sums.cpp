#include "tools/kdtrain/step_sums.h"

#include <cmath>

namespace retort::tools {

std::optional<StepSums::NotFinite> StepSums::fold(const std::vector<distill::StepNumbers>& steps) {
  RETORT_CHECK(steps.size() == waiting_.size(), "[step_sums] expected the numbers of ",
               waiting_.size(), " steps, got ", steps.size());
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const distill::StepNumbers& step = steps[i];
    if (!std::isfinite(step.loss)) return NotFinite{steps.size() - 1 - i, step.loss};
    loss_ += step.loss;
    ce_ += step.ce;
    kd_ += step.kd;
    lambda_ += waiting_[i];
    correct_ += step.correct;
    teacher_correct_ += step.teacher_correct;
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
