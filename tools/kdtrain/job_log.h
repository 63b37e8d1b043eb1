// The lines of metrics.jsonl that one job writes.
#pragma once
#include "tools/kdtrain/run_folder.h"
#include "tools/kdtrain/step_costs.h"
#include "tools/kdtrain/step_sums.h"

namespace retort::tools {

class JobLog {
 public:
  JobLog(MetricsLog* log, std::size_t job, const TrainingPlan& plan)
      : log_(*log), job_(job), plan_(plan) {}

  void note(const std::string& text);
  /// Logs and clears the sums.
  void training(const Trainer& trainer, StepSums* sums, StepCosts* costs);
  /// `teacher`: also agreement with the teacher.
  void evaluation(const Trainer& trainer, const std::string& split,
                  const distill::EvaluationResult& result, double seconds, bool teacher);
  /// Ends the job; metrics of the results table. wall_s: of all its sittings.
  void final_line(const Trainer& trainer, const StepSums& sums,
                  const std::map<std::string, double>& metrics, const MemoryStatistics& memory,
                  double wall_s);

  /// All lines so far, each with its newline: what a checkpoint keeps.
  const std::string& lines() const { return lines_; }
  void restore(std::string lines) { lines_ = std::move(lines); }
  /// "loss 1.234 acc 0.567" of the last training line.
  const std::string& progress() const { return progress_; }

 private:
  Json head(const Trainer& trainer, const std::string& split) const;
  void write(const Json& line);

  MetricsLog& log_;
  std::size_t job_;
  const TrainingPlan& plan_;
  std::string lines_, progress_;
};

}  // namespace retort::tools
