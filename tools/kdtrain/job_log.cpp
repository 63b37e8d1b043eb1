#include "tools/kdtrain/job_log.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace retort::tools {

void JobLog::write(const Json& line) {
  const std::string text = line.dump();
  log_.write(job_, text);
  lines_ += text + "\n";
}

Json JobLog::head(const Trainer& trainer, const std::string& split) const {
  const std::int64_t step = trainer.steps_done(), epoch_steps = trainer.steps_per_epoch();
  Json line = Json::object();
  line.set("arm", plan_.arm).set("seed", plan_.seed);
  if (step % epoch_steps == 0)
    line.set("epoch", step / epoch_steps);
  else
    line.set("epoch",
             std::round(1e4 * static_cast<double>(step) / static_cast<double>(epoch_steps)) / 1e4);
  line.set("step", step).set("split", split);
  return line;
}

void JobLog::note(const std::string& text) {
  Json line = Json::object();
  line.set("arm", plan_.arm).set("seed", plan_.seed).set("split", "note").set("text", text);
  write(line);
}

void JobLog::training(const Trainer& trainer, StepSums* sums, StepCosts* costs) {
  if (sums->steps() == 0) return;
  Json line = head(trainer, "train");
  line.set("loss", sums->loss()).set("loss_ce", sums->cross_entropy());
  line.set("loss_kd", sums->distillation()).set("lambda", sums->lambda());
  line.set("temperature", trainer.temperature()).set("lr", trainer.learning_rate());
  line.set("accuracy", sums->accuracy());
  costs->log(&line);
  if (plan_.stages.size() > 1) line.set("stage", trainer.stage_name());
  if (trainer.reliance()) line.set("fraction_clamped", sums->fraction_clamped());
  write(line);
  char text[64];
  std::snprintf(text, sizeof text, "loss %.3f acc %.3f", sums->loss(), sums->accuracy());
  progress_ = text;
  sums->clear();
}

void JobLog::evaluation(const Trainer& trainer, const std::string& split,
                        const distill::EvaluationResult& r, double seconds, bool teacher) {
  Json line = head(trainer, split);
  line.set("loss", r.loss).set("loss_ce", r.loss).set("loss_kd", r.mean_kl);
  line.set("lambda", 0.0).set("temperature", 1.0).set("lr", trainer.learning_rate());
  line.set("accuracy", r.accuracy);
  line.set("samples_per_s", std::round(static_cast<double>(r.samples) / std::max(seconds, 1e-9)));
  line.set("calibration_error", r.calibration_error);
  if (teacher) line.set("teacher_agreement", r.agreement);
  write(line);
}

void JobLog::final_line(const Trainer& trainer, const StepSums& sums,
                        const std::map<std::string, double>& metrics,
                        const MemoryStatistics& memory, double wall_s) {
  Json line = Json::object();
  line.set("arm", plan_.arm).set("seed", plan_.seed).set("step", trainer.steps_done());
  line.set("split", "final");
  for (const auto& [name, value] : metrics) line.set(name, value);
  if (trainer.reliance()) line.set("fraction_clamped", sums.fraction_clamped_of_all());
  log_memory(&line, memory);
  line.set("parameters", plan_.model->parameter_count());
  line.set("wall_s", std::round(1e3 * wall_s) / 1e3);
  write(line);
}

}  // namespace retort::tools
