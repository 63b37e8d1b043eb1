// The lines of metrics.jsonl that one job writes. A key stands only where it means something.
#pragma once
#include <optional>

#include "distill/metrics/measure.h"
#include "engine/io/append_log.h"
#include "tools/kdtrain/run_folder.h"
#include "tools/kdtrain/run_ranks.h"
#include "tools/kdtrain/step_costs.h"
#include "tools/kdtrain/step_sums.h"
#include "tools/kdtrain/trainer.h"

namespace retort::tools {

class JobLog {
 public:
  /// Rank 0 alone writes; the calls that open files are its alone.
  JobLog(MetricsLog* log, std::size_t job, const TrainingPlan& plan, RunRanks* ranks)
      : log_(*log), job_(job), plan_(plan), ranks_(*ranks) {}

  /// The job's own file of lines, as far as its checkpoint knows them; before anything is written.
  void open(const std::string& path, const FileMark& mark) { own_.emplace(path, mark); }
  /// All lines so far are on the disk; what a checkpoint keeps of them.
  FileMark sync() { return own_->sync(); }
  /// The numbers of all lines from now on also as TensorBoard's events (event_file.h).
  void open_events(const std::string& path, const FileMark& mark);
  FileMark sync_events() { return events_->sync(); }

  void note(const std::string& text);
  /// The job ended without a result.
  void failed(std::int64_t step, const std::string& reason);
  /// Logs and clears the sums.
  void training(const Trainer& trainer, StepSums* sums, StepCosts* costs);
  /// rows: that the metrics are of.
  void evaluation(const Trainer& trainer, const std::string& split, const distill::Metrics& metrics,
                  std::int64_t rows, double seconds);
  /// Ends the job; metrics of the results table. wall_s: of all its sittings.
  void final_line(const Trainer& trainer, const StepSums& sums, const distill::Metrics& metrics,
                  const MemoryStatistics& memory, double wall_s);

  /// "loss 1.234 acc 0.567" of the last training line.
  const std::string& progress() const { return progress_; }

 private:
  Json begin() const;
  Json head(const Trainer& trainer, const std::string& split) const;
  void write(const Json& line);

  MetricsLog& log_;
  std::size_t job_;
  const TrainingPlan& plan_;
  RunRanks& ranks_;
  std::optional<AppendLog> own_, events_;
  std::string progress_;
};

/// A job that could not begin, because what it needs failed.
void log_not_begun(const std::string& arm, std::int64_t seed, const std::string& task,
                   const std::string& reason, MetricsLog* log, std::size_t log_job);

/// A model that was not trained here: its evaluations and its final line.
void log_evaluated(const TrainingPlan& plan, const ExperimentData& data,
                   const std::vector<distill::Metrics>& of_sets, const distill::Metrics& more,
                   double seconds, MetricsLog* log, std::size_t log_job);

}  // namespace retort::tools
