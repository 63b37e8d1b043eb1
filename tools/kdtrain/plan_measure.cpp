#include "tools/kdtrain/plan_measure.h"

#include <algorithm>
#include <mutex>

#include "tools/kdtrain/step_costs.h"

namespace retort::tools {
namespace {

// Long enough that a clock's jitter does not matter, short enough to do it for every arm.
constexpr double kTimedSeconds = 0.3;
constexpr std::int64_t kMostSteps = 2000;
constexpr double kSlowStep = 1;  // seconds

// A model with fresh weights may be far off: what it answers is not looked at.
double evaluate_a_batch(const TrainingPlan& plan, const DryRun& run) {
  const EvaluationSet& set = run.data->evaluation.front();
  std::vector<nn::Reading> readings{plan.reading};
  distill::MeasureOptions options{.batch = plan.settings->integer("train.evaluate_batch")};
  options.limit = std::max(  // drawn: what is ready at once, and a pass
      options.batch, distill::samples_of_a_pass(set.data->facts(), run.device));
  if (plan.teacher != nullptr && !plan.teacher->answers.empty()) {
    readings.push_back(plan.teacher->reading);
    options.teacher = plan.teacher->answers.front().get();
  }
  const auto start = Clock::now();
  try {
    distill::measure(*plan.model, *plain_source(*set.data, run.device, std::move(readings)),
                     options);
  } catch (const Error& error) {  // it may be so far off that its logits are no numbers
    if (error.code() != ErrorCode::kNumerics) throw;
  }
  return seconds_since(start) / static_cast<double>(std::min(options.limit, set.data->size()));
}

std::size_t bytes_of(const NamedTensors& tensors) {
  std::size_t sum = 0;
  for (const auto& [name, tensor] : tensors) sum += tensor.bytes();
  return sum;
}

struct Timing {
  double step_s = 0, teacher_s = 0, update_s = 0, evaluation_s_per_sample = 0;
  std::int64_t steps_per_epoch = 1;
};

// One step, with its numbers read back: that waits for the device.
void step_and_wait(Trainer& trainer) {
  trainer.step();
  static_cast<void>(trainer.meter().take());
}

// One stage of a fresh job: warm up, then time.
Timing time_stage(const DryRun& run, std::size_t stage) {
  std::shared_ptr<void> keep;
  TrainingPlan plan = run.make_plan(&keep);
  plan.stages = {plan.stages.at(stage)};
  plan.stages[0].until = {};
  Trainer trainer(plan, run.device);
  // On CUDA a step's first runs are eager, then it is captured.
  for (int i = 0; i < (run.device == Device::kCuda ? 4 : 1); ++i) step_and_wait(trainer);
  trainer.timer().clear();
  const auto start = Clock::now();
  std::int64_t steps = 0;
  double elapsed = 0;
  for (; steps < kMostSteps &&
         (steps < 1 || (elapsed < kTimedSeconds && trainer.steps_done() < trainer.steps_planned()));
       ++steps) {
    step_and_wait(trainer);
    elapsed = seconds_since(start);
  }
  const double n = static_cast<double>(steps);
  Timing timing{elapsed / n, trainer.timer().seconds(distill::Phase::kTeacher) / n,
                trainer.timer().seconds(distill::Phase::kUpdate) / n, 0, trainer.steps_per_epoch()};
  timing.evaluation_s_per_sample = evaluate_a_batch(plan, run);
  return timing;
}

// Peaks above what was there before, into the larger of old and new.
void take_peaks(Device device, const RoleBytes& before, std::size_t* peak, RoleBytes* by_role) {
  std::size_t before_all = 0;
  for (const std::size_t bytes : before) before_all += bytes;
  const MemoryStatistics now = memory_statistics(device);
  *peak = std::max(*peak, now.peak_bytes - before_all);
  for (std::size_t r = 0; r < before.size(); ++r)
    (*by_role)[r] = std::max((*by_role)[r], now.peak_by_role[r] - before[r]);
  reset_peak_memory(device);
}

void weigh_stage(const DryRun& run, std::size_t stage, bool slow, JobPlan* job) {
  const RoleBytes before = bytes_in_use(run.device);
  reset_peak_memory(run.device);
  std::shared_ptr<void> keep;
  TrainingPlan plan = run.make_plan(&keep);
  plan.stages = {plan.stages.at(stage)};
  plan.stages[0].until = {};
  Trainer trainer(plan, run.device);
  step_and_wait(trainer);
  take_peaks(run.device, before, &job->start, &job->start_by_role);
  if (slow) {  // the start holds for all: not a minute more for what is hardly smaller
    job->steady = std::max(job->steady, job->start);
    for (std::size_t r = 0; r < before.size(); ++r)
      job->steady_by_role[r] = std::max(job->steady_by_role[r], job->start_by_role[r]);
  } else {
    step_and_wait(trainer);
  }
  evaluate_a_batch(plan, run);
  const nn::CheckpointContents checkpoint = trainer.checkpoint(Json::object(), {});
  take_peaks(run.device, before, &job->steady, &job->steady_by_role);
  std::size_t bytes = 0;
  for (const auto& file : checkpoint.files) bytes += bytes_of(file.tensors);
  job->checkpoint_bytes = std::max(job->checkpoint_bytes, bytes);
  job->model_bytes = bytes_of(checkpoint.files.front().tensors);
}

bool same_work(const distill::Stage& a, const distill::Stage& b) {
  return std::equal(a.terms.begin(), a.terms.end(), b.terms.begin(), b.terms.end(),
                    [](const distill::WeightedTerm& x, const distill::WeightedTerm& y) {
                      return x.term->key() == y.term->key();
                    });
}

}  // namespace

RoleBytes bytes_in_use(Device device) { return memory_statistics(device).current_by_role; }

void measure_job(const DryRun& run, JobPlan* job) {
  std::vector<distill::Stage> stages;
  {
    std::shared_ptr<void> keep;
    stages = run.make_plan(&keep).stages;
  }
  std::int64_t samples = 0;
  for (const EvaluationSet& set : run.data->evaluation) samples += set.data->size();
  const auto copies = static_cast<std::size_t>(run.at_once);
  job->stages.clear();
  for (std::size_t i = 0; i < stages.size(); ++i) {
    StagePlan stage{stages[i].name, stages[i].until.steps};
    for (std::size_t k = 0; k < i && stage.step_s == 0; ++k)
      if (same_work(stages[k], stages[i])) {
        stage.step_s = job->stages[k].step_s;
        stage.teacher_s = job->stages[k].teacher_s;
        stage.update_s = job->stages[k].update_s;
      }
    if (stage.step_s == 0) {
      std::mutex mutex;
      Timing sum;
      // Every thread of the run takes part, so each has its scratch memory afterwards.
      run_jobs(copies, run.at_once, [&](std::size_t) {
        const Timing t = time_stage(run, i);
        const std::lock_guard lock(mutex);
        sum.step_s += t.step_s;
        sum.teacher_s += t.teacher_s;
        sum.update_s += t.update_s;
        sum.evaluation_s_per_sample += t.evaluation_s_per_sample;
        sum.steps_per_epoch = t.steps_per_epoch;
      });
      const double n = static_cast<double>(run.at_once);
      stage.step_s = sum.step_s / n;
      stage.teacher_s = sum.teacher_s / n;
      stage.update_s = sum.update_s / n;
      job->evaluation_s = sum.evaluation_s_per_sample / n * static_cast<double>(samples);
      job->steps_per_epoch = sum.steps_per_epoch;
      run_jobs(copies, run.at_once, [&](std::size_t copy) {
        if (copy == 0) weigh_stage(run, i, stage.step_s > kSlowStep, job);
      });
      release_cached_memory(run.device);
    }
    job->stages.push_back(std::move(stage));
  }
}

}  // namespace retort::tools
