#include "tools/kdtrain/job_log.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "tools/kdtrain/event_file.h"

namespace retort::tools {
namespace {

Json begin_line(const std::string& arm, std::int64_t seed, const std::string& task) {
  Json line = Json::object();
  line.set("arm", arm).set("seed", seed);
  if (!task.empty()) line.set("task", task);
  return line;
}
Json begin_line(const TrainingPlan& plan) { return begin_line(plan.arm, plan.seed, plan.task); }

Json& set_failure(Json& line, std::int64_t step, const std::string& reason) {
  return line.set("split", "failed").set("step", step).set("reason", reason);
}

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// What is measured, by "split/name"; where it stands in the run is not.
std::string events_of(const Json& line) {
  std::vector<EventScalar> scalars;
  std::int64_t step = 0;
  const std::string& split = line.at("split").as_string();
  for (const auto& [name, value] : line.members()) {
    if (name == "step") step = value.as_integer();
    if (name == "seed" || name == "epoch" || name == "step" || name == "n") continue;
    if (value.kind() == Json::Kind::kNumber || value.kind() == Json::Kind::kInteger)
      scalars.push_back({split + "/" + name, value.as_number()});
  }
  return scalars.empty() ? "" : event_record(wall_time(), step, scalars);
}

}  // namespace

void JobLog::open_events(const std::string& path, const FileMark& mark) {
  events_.emplace(path, mark);
  if (mark.bytes == 0) events_->append(first_event_record(wall_time()));
}

void JobLog::write(const Json& line) {
  ranks_.write([&] {
    const std::string text = line.dump();
    log_.write(job_, text);
    own_->append(text + "\n");
    if (events_) events_->append(events_of(line));
  });
}

Json JobLog::begin() const { return begin_line(plan_); }

Json JobLog::head(const Trainer& trainer, const std::string& split) const {
  const std::int64_t step = trainer.steps_done(), epoch_steps = trainer.steps_per_epoch();
  Json line = begin();
  if (step % epoch_steps == 0)
    line.set("epoch", step / epoch_steps);
  else
    line.set("epoch",
             std::round(1e4 * static_cast<double>(step) / static_cast<double>(epoch_steps)) / 1e4);
  line.set("step", step).set("split", split);
  return line;
}

void JobLog::note(const std::string& text) {
  Json line = begin();
  write(line.set("split", "note").set("text", text));
}

void JobLog::failed(std::int64_t step, const std::string& reason) {
  Json line = begin();
  write(set_failure(line, step, reason));
}

void JobLog::training(const Trainer& trainer, StepSums* sums, StepCosts* costs) {
  const distill::StepNumbers& numbers = sums->recent();
  if (numbers.steps == 0) return;
  Json line = head(trainer, "train");
  const auto add = [&line](const std::string& key, const Json& value) {
    RETORT_CHECK(line.find(key) == nullptr, "[log] a term has a column '", key,
                 "': lines of training use that name for themselves");
    line.set(key, value);
  };
  for (const auto& column : numbers.columns()) add(column.name, numbers.mean(column.name));
  Json own = Json::object();
  if (numbers.has("lambda")) own.set("temperature", trainer.temperature());
  own.set("lr", trainer.learning_rate());
  costs->log(&own);
  if (plan_.stages.size() > 1) own.set("stage", trainer.stage_name());
  for (const auto& [key, value] : own.members()) add(key, value);
  write(line);
  char text[64];
  std::snprintf(text, sizeof text, "loss %.3f", numbers.loss());
  progress_ = text;
  if (numbers.has("accuracy")) {
    std::snprintf(text, sizeof text, " acc %.3f", numbers.mean("accuracy"));
    progress_ += text;
  }
  sums->clear();
}

void JobLog::evaluation(const Trainer& trainer, const std::string& split,
                        const distill::Metrics& metrics, std::int64_t rows, double seconds) {
  Json line = head(trainer, split);
  line.set("n", rows);
  for (const auto& [name, value] : metrics) line.set(name, value);
  line.set("samples_per_s", std::round(static_cast<double>(rows) / std::max(seconds, 1e-9)));
  write(line);
}

void JobLog::final_line(const Trainer& trainer, const StepSums& sums,
                        const distill::Metrics& metrics, const MemoryStatistics& memory,
                        double wall_s) {
  Json line = begin();
  line.set("step", trainer.steps_done()).set("split", "final");
  for (const auto& [name, value] : metrics) line.set(name, value);
  if (trainer.reliance()) line.set("fraction_clamped", sums.mean_of_all("fraction_clamped"));
  log_memory(&line, memory);
  line.set("parameters", plan_.model->parameter_count());
  line.set("wall_s", std::round(1e3 * wall_s) / 1e3);
  write(line);
}

void log_not_begun(const std::string& arm, std::int64_t seed, const std::string& task,
                   const std::string& reason, MetricsLog* log, std::size_t log_job) {
  Json line = begin_line(arm, seed, task);
  log->write(log_job, set_failure(line, 0, reason).dump());
  log->finish(log_job);
}

void log_evaluated(const TrainingPlan& plan, const ExperimentData& data,
                   const std::vector<distill::Metrics>& of_sets, const distill::Metrics& more,
                   double seconds, MetricsLog* log, std::size_t log_job) {
  Json last = begin_line(plan);
  last.set("step", 0).set("split", "final");
  for (std::size_t i = 0; i < data.evaluation.size(); ++i) {
    const std::string& set = data.evaluation[i].name;
    Json line = begin_line(plan);
    line.set("epoch", 0).set("step", 0).set("split", set);
    line.set("n", data.evaluation[i].data->size());
    for (const auto& [name, value] : of_sets[i]) {
      line.set(name, value);
      last.set(set + "." + name, value);
    }
    log->write(log_job, line.dump());
  }
  for (const auto& [name, value] : more) last.set(name, value);
  last.set("parameters", plan.model->parameter_count()).set("wall_s", seconds);
  log->write(log_job, last.dump());
  log->finish(log_job);
}

}  // namespace retort::tools
