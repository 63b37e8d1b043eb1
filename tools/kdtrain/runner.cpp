// `kdtrain run`: a folder, and the recipe's tasks in it, one after the other.
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "engine/runtime/device.h"
#include "tools/kdtrain/command_line.h"
#include "tools/kdtrain/job_state.h"
#include "tools/kdtrain/provenance.h"
#include "tools/kdtrain/recipe_identity.h"
#include "tools/kdtrain/signals.h"
#include "tools/kdtrain/step_costs.h"
#include "tools/kdtrain/task_run.h"
#include "tools/report/report.h"

namespace retort::tools {
namespace {

class Run {
 public:
  Run(const CommandLine& line, const Recipe& recipe, bool models_only = false)
      : recipe_(recipe),
        line_(line),
        recipes_(recipes_in_tasks(recipe)),
        folder_(line.out.empty() ? "runs/" + recipe.name : line.out, recipe, line.resume,
                line.retry_failed),
        log_(folder_.file("metrics.jsonl")),
        shared_{recipe,
                open_device(line.device, recipe.base),
                folder_,
                log_,
                progress_,
                context_,
                line.retry_failed,
                models_only} {
    for (std::size_t i = 0; i < recipes_.size(); ++i)
      tasks_.push_back(
          std::make_unique<TaskRun>(shared_, recipes_, i, i == 0 ? nullptr : tasks_.back().get()));
  }

  // Returns the signal that stopped the run, or 0.
  int run() {
    for (const auto& task : tasks_) task->open();
    const Sitting sitting = this_sitting();
    folder_.start(recipe_, provenance_comment(sitting));
    begin_provenance(folder_.path(), sitting);
    for (const auto& task : tasks_) task->write_origin();
    for (const std::string& change : folder_.changes())
      progress_.line("changed since the last sitting: " + change);
    started_ = true;
    context_.recipe = &recipe_;
    context_.folder = &folder_;
    context_.log = &log_;
    context_.progress = &progress_;
    context_.device = shared_.device;
    list_jobs();
    for (const auto& task : tasks_) {
      if (!task->run()) return stop_requested() == 0 ? -1 : stop_requested();
      task->release();
    }
    shared_.next_phase();
    finish_provenance(folder_.path());
    progress_.line("memory of tensors: " + memory_text(shared_.peak) + "; the process at most " +
                   std::to_string(process_peak_mib()) + " MiB");
    return 0;
  }

  const std::string& path() const { return folder_.path(); }
  bool started() const { return started_; }
  /// There is something to go on from.
  bool checkpointed() const { return context_.checkpointed; }
  std::int64_t jobs() const { return jobs_; }
  const std::vector<FailedJob>& failed() const { return shared_.failed; }

 private:
  Sitting this_sitting() const {
    Sitting sitting{line_.invocation, name_of(shared_.device), {}, hashes_of_files(recipe_)};
    if (shared_.device == Device::kCuda)
      sitting.device += std::string(": ") + cuda_device_info().name;
    for (const auto& task : tasks_) task->add_hashes(&sitting.data);
    return sitting;
  }

  void list_jobs() {
    double steps = 0;
    for (const auto& task : tasks_) {
      steps += task->list();
      jobs_ += task->job_count();
    }
    log_.open();
    progress_.set_total(jobs_, steps);
    const std::size_t arms = recipe_.arms.size(), runs = tasks_.front()->runs();
    std::fprintf(stderr, "%s: %s on %s, %zu arm%s x %zu run%s, folder %s%s\n", recipe_.name.c_str(),
                 tasks_.front()->data().describe().c_str(), name_of(shared_.device), arms,
                 arms == 1 ? "" : "s", runs, runs == 1 ? "" : "s", folder_.path().c_str(),
                 folder_.resuming() ? " (resumed)" : "");
  }

  static long process_peak_mib() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss / 1024;
  }

  const Recipe& recipe_;
  const CommandLine& line_;
  const std::vector<Recipe> recipes_;  // by task
  RunFolder folder_;
  bool started_ = false;
  std::int64_t jobs_ = 0;
  MetricsLog log_;
  Progress progress_;
  RunContext context_;
  RunShared shared_;
  std::vector<std::unique_ptr<TaskRun>> tasks_;
};

std::string resume_command(const CommandLine& line, const std::string& folder) {
  std::string again = "kdtrain run";
  if (!line.subject.empty()) again += " " + shell_word(line.subject);
  for (const std::string& word : line.words) again += " " + shell_word(word);
  for (const std::string& library : line.load) again += " --load " + shell_word(library);
  if (line.device != "auto") again += " --device " + line.device;
  if (line.threads > 0) again += " --threads " + std::to_string(line.threads);
  return again + " --out " + shell_word(folder) + " --resume";
}

}  // namespace

std::string train_teacher(const CommandLine& line, Recipe recipe, const std::string& folder) {
  // What learns from another model has no part in it; the scored arm learns from [teacher].
  std::erase_if(recipe.arms, [](const Arm& arm) { return arm.teachers != Teachers{"teacher"}; });
  recipe.models.clear();
  const std::int64_t seed = recipe.base.integers("teacher.seeds").front();
  recipe.base.set("teacher.seeds", nn::Ints{seed}, recipe.base.origin("teacher.seeds"));
  CommandLine own = line;
  own.out = folder;
  std::error_code absent;
  const std::string job = folder + "/arms/teacher/seed" + std::to_string(seed);
  own.resume = std::filesystem::exists(folder + "/recipe.resolved.toml", absent);
  own.retry_failed = std::filesystem::exists(job + "/" + kJobFailed, absent);
  install_signal_handlers();
  const auto begun = [&] {
    try {
      return std::make_unique<Run>(own, recipe, true);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUsage) throw;
      // `run` would say which of its switches helps.
      const std::string what = error.what();
      fail(ErrorCode::kUsage, "[score] the recipe's teacher cannot be trained in ", folder, ": ",
           what.substr(0, what.find(": --resume goes on")),
           "; remove that folder, or name another FILE with --out");
    }
  }();
  Run& run = *begun;
  if (const int signal = run.run(); signal != 0)
    fail(kStopped, run.checkpointed() ? "stopped after a checkpoint" : "stopped",
         "; the same command goes on with ", folder);
  RETORT_CHECK_AS(kNumerics, run.failed().empty(), "[score] the teacher failed: ",
                  run.failed().empty() ? "" : run.failed().front().reason,
                  "; a smaller teacher.train.lr or a teacher.train.clip_norm may help: the same "
                  "command with it tries again");
  return job + "/" + kJobWeights;
}

int run_command(const CommandLine& line) {
  const auto recipe = checked_recipe(line);
  if (!recipe) return static_cast<int>(ErrorCode::kUsage);
  install_signal_handlers();
  Run run(line, *recipe);
  int signal = 0;
  // The failure itself is what counts; the report is of what there is.
  const auto report_failure = [&](ErrorCode code, const std::string& what) {
    try {
      write_report(run.path(), report_text(*recipe));
    } catch (const Error&) {
    }
    // What the machine lacked may be there the next time.
    const bool passing = code == ErrorCode::kIo || code == ErrorCode::kMemory;
    fail(code, what,
         passing && run.started()
             ? "\nthe last checkpoints stand; to go on when the cause is gone:\n  " +
                   resume_command(line, run.path())
             : "");
  };
  try {
    signal = run.run();
  } catch (const Error& e) {
    report_failure(e.code(), e.what());
  } catch (const std::bad_alloc&) {
    report_failure(ErrorCode::kMemory, "out of memory");
  }
  write_report(run.path(), report_text(*recipe));
  if (signal != 0) {
    std::fprintf(stderr, "stopped by %s %s; to go on:\n  %s\n", signal_name(signal),
                 run.checkpointed() ? "after a checkpoint" : "before the first checkpoint",
                 resume_command(line, run.path()).c_str());
    return exit_code_of(signal);
  }
  std::fputs(results_table(run.path(), report_text(*recipe)).c_str(), stdout);
  std::printf("%s/report.html\n", run.path().c_str());
  if (run.failed().empty()) return 0;
  std::fflush(stdout);
  std::string list;
  for (const FailedJob& job : run.failed()) list += "\n  " + job.title + ": " + job.reason;
  fail(ErrorCode::kNumerics, run.failed().size(), " of ", run.jobs(),
       " jobs failed; the results of the others stand:", list,
       "\na smaller lr or a clip_norm (arm.NAME.train.lr=...) may help; the failed ones are tried "
       "again, each from its last "
       "checkpoint, by\n  ",
       resume_command(line, run.path()), " --retry-failed");
}

}  // namespace retort::tools
