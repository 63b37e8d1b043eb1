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
    lambda_ += waiting_[i].lambda;
    clamped_ += waiting_[i].clamped;
    all_clamped_ += waiting_[i].clamped;
    all_steps_ += 1;
    correct_ += step.correct;
    teacher_correct_ += step.teacher_correct;
    steps_ += 1;
    samples_ += step.samples;
  }
  waiting_.clear();
  return std::nullopt;
}

void StepSums::clear() {
  StepSums next;
  next.all_clamped_ = all_clamped_;
  next.all_steps_ = all_steps_;
  *this = std::move(next);
}

Json StepSums::json() const {
  Json out = Json::object();
  out.set("loss", loss_).set("ce", ce_).set("kd", kd_).set("lambda", lambda_);
  out.set("correct", correct_).set("teacher_correct", teacher_correct_);
  out.set("steps", steps_).set("samples", samples_).set("clamped", clamped_);
  out.set("all_clamped", all_clamped_).set("all_steps", all_steps_);
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
  s.clamped_ = json.at("clamped").as_number();
  s.all_clamped_ = json.at("all_clamped").as_number();
  s.all_steps_ = json.at("all_steps").as_integer();
  return s;
}

}  // namespace retort::tools
