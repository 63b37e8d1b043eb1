// `kdtrain run`: a folder, and the recipe's tasks in it, one after the other.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "engine/io/file.h"
#include "engine/runtime/device.h"
#include "kernels/common/parallel.h"
#include "tools/kdtrain/command_line.h"
#include "tools/kdtrain/error_codes.h"
#include "tools/kdtrain/job_state.h"
#include "tools/kdtrain/machine.h"
#include "tools/kdtrain/provenance.h"
#include "tools/kdtrain/rank_recipe.h"
#include "tools/kdtrain/rank_status.h"
#include "tools/kdtrain/ranks.h"
#include "tools/kdtrain/recipe_identity.h"
#include "tools/kdtrain/signals.h"
#include "tools/kdtrain/step_costs.h"
#include "tools/kdtrain/task_run.h"
#include "tools/kdtrain/training_settings.h"
#include "tools/report/report.h"

namespace retort::tools {
namespace {

std::string folder_of(const CommandLine& line, const Recipe& recipe) {
  return line.out.empty() ? "runs/" + recipe.name : line.out;
}

class Run {
 public:
  Run(const CommandLine& line, const Recipe& recipe, RunRanks& ranks, bool models_only = false)
      : recipe_(recipe),
        line_(line),
        ranks_(ranks),
        recipes_(recipes_in_tasks(recipe)),
        path_(folder_of(line, recipe)),
        log_(ranks.writes() ? path_ + "/metrics.jsonl" : ""),
        progress_(!ranks.writes()),
        shared_{recipe,
                open_device(line.device, recipe.base),
                nullptr,
                &log_,
                progress_,
                context_,
                line.retry_failed,
                models_only} {
    context_.ranks = &ranks_;
    for (std::size_t i = 0; i < recipes_.size(); ++i)
      tasks_.push_back(
          std::make_unique<TaskRun>(shared_, recipes_, i, i == 0 ? nullptr : tasks_.back().get()));
    // Ranks have to agree first.
    if (!ranks_.several()) make_folder();
  }

  // Returns the signal that stopped the run, or 0.
  int run() {
    if (ranks_.several()) compare_recipes();
    ranks_.together([&] {
      for (const auto& task : tasks_) {
        if (ranks_.several()) check_ranks(task->jobs(), ranks_.size());
        task->open();
      }
    });
    const Sitting sitting = this_sitting();
    if (ranks_.several()) meet(sitting);
    ranks_.on_writer([&] {
      folder_->start(recipe_, provenance_comment(sitting));
      begin_provenance(path_, sitting);
      for (const auto& task : tasks_) task->write_origin();
    });
    ranks_.set_status_folder(path_);
    ranks_.write_status("running", 0, 0, "");
    for (const std::string& change : folder_->changes())
      progress_.line("changed since the last sitting: " + change);
    started_ = true;
    context_.recipe = &recipe_;
    context_.folder = folder_.get();
    context_.log = &log_;
    context_.progress = &progress_;
    context_.device = shared_.device;
    list_jobs();
    for (const auto& task : tasks_) {
      if (!run_task(*task)) return stop_requested() == 0 ? -1 : stop_requested();
      task->release();
    }
    shared_.next_phase();
    ranks_.on_writer([&] { finish_provenance(path_); });
    progress_.line("memory of tensors: " + memory_text(shared_.peak) + "; the process at most " +
                   std::to_string(process_peak_mib()) + " MiB");
    return 0;
  }

  const std::string& path() const { return path_; }
  bool started() const { return started_; }
  /// There is something to go on from.
  bool checkpointed() const { return context_.checkpointed; }
  std::int64_t jobs() const { return jobs_; }
  const std::vector<FailedJob>& failed() const { return shared_.failed; }

 private:
  void make_folder() {
    folder_ = std::make_unique<RunFolder>(path_, recipe_, line_.resume, line_.retry_failed,
                                          shared_.device);
    shared_.folder = folder_.get();
    // Of a sitting on several ranks; the folder is locked by now.
    if (const RankStatus before = read_rank_status(path_); before.says == RankStatus::kRunning)
      progress_.line("note: the sitting before " + told_of_silence(before));
    std::error_code absent;
    if (!ranks_.several() && std::filesystem::exists(folder_->file(kStatusFile), absent))
      remove_path(folder_->file(kStatusFile));
  }

  // False after a signal, between steps or in a pass before training.
  static bool run_task(TaskRun& task) {
    try {
      return task.run();
    } catch (const Error& e) {
      if (e.code() != kStopped) throw;
      return false;
    }
  }

  // First of all: another recipe would meet other files, and tell of them.
  void compare_recipes() {
    Handshake handshake;
    handshake.add("recipe", recipe_.name);
    handshake.add("processor", first_match("/proc/cpuinfo", "model name"));
    ranks_.together([&] { add_recipe(recipe_, &handshake); });
    ranks_.compare(handshake);
  }

  // Before anything is written: are all ranks about to do the same? Then rank 0 makes the folder.
  void meet(const Sitting& sitting) {
    stop_wanted = nullptr;  // from now on ranks stop together
    Handshake handshake;
    for (const auto& [split, hash] : sitting.data)
      handshake.add(split == "train" ? "training data" : split + " data", hash);
    ranks_.compare(handshake);
    ranks_.watch();
    for (const auto& task : tasks_) task->check();
    Json made = Json::array();
    const std::string told = ranks_.from_writer([&] {
      make_folder();
      for (const std::string& change : folder_->changes()) made.push(change);
      return Json::object()
          .set("resuming", folder_->resuming())
          .set("changes", std::move(made))
          .dump();
    });
    progress_.line(sitting.ranks);
    if (ranks_.writes()) return;
    const Json json = Json::parse(told, "rank 0");
    std::vector<std::string> changes;
    for (const Json& change : json.at("changes").items()) changes.push_back(change.as_string());
    folder_ = std::make_unique<RunFolder>(ranks_.mirror(), json.at("resuming").as_bool(),
                                          std::move(changes));
    shared_.folder = folder_.get();
  }

  Sitting this_sitting() const {
    Sitting sitting{line_.invocation, name_of(shared_.device), {}, hashes_of_files(recipe_)};
    if (const Communicator* const all = ranks_.shared()) {
      const Settings& first = recipe_.arms.front().settings;
      const bool by_tokens = first.integer("train.batch_tokens") > 0;
      sitting.ranks = ranks_text(*all, thread_count(), slices_of(first, "train"),
                                 by_tokens ? 0 : first.integer("train.batch"));
    }
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
    ranks_.on_writer([&] { log_.open(); });
    progress_.set_total(jobs_, steps);
    if (!ranks_.writes()) return;
    const std::size_t arms = recipe_.arms.size(), runs = tasks_.front()->runs();
    std::fprintf(stderr, "%s: %s on %s, %zu arm%s x %zu run%s, folder %s%s\n", recipe_.name.c_str(),
                 tasks_.front()->data().describe().c_str(), name_of(shared_.device), arms,
                 arms == 1 ? "" : "s", runs, runs == 1 ? "" : "s", path_.c_str(),
                 folder_->resuming() ? " (resumed)" : "");
  }

  static long process_peak_mib() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss / 1024;
  }

  const Recipe& recipe_;
  const CommandLine& line_;
  RunRanks& ranks_;
  const std::vector<Recipe> recipes_;  // by task
  const std::string path_;             // of the run folder, as rank 0 has it
  std::unique_ptr<RunFolder> folder_;
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
  if (line.ranks > 0) again += " --ranks " + std::to_string(line.ranks);
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
  RunRanks ranks;
  const auto begun = [&] {
    try {
      return std::make_unique<Run>(own, recipe, ranks, true);
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

namespace {

// The recipe, checked and with its slices settled; nothing after its mistakes were printed.
std::optional<Recipe> recipe_of(const CommandLine& line, RunRanks& ranks) {
  std::optional<Recipe> recipe;
  ranks.together([&] { recipe = checked_recipe(line, ranks.writes()); });
  if (Communicator* const all = ranks.shared()) {
    std::int64_t wrong = recipe ? 0 : 1;
    std::vector<std::int64_t> of_ranks(static_cast<std::size_t>(all->size()));
    all->gather(&wrong, of_ranks.data(), sizeof wrong);
    const auto first = std::find(of_ranks.begin(), of_ranks.end(), 1);
    if (first == of_ranks.end()) {
    } else if (const auto rank = first - of_ranks.begin(); rank == 0) {
      return std::nullopt;
    } else {
      throw SharedError(ErrorCode::kUsage,
                        join(all->name(static_cast<int>(rank)),
                             " has another recipe, with mistakes: `kdtrain validate` there"),
                        static_cast<int>(rank));
    }
  }
  if (!recipe) return std::nullopt;
  const std::string saved = ranks.from_writer([&] {
    const std::string file = folder_of(line, *recipe) + "/recipe.resolved.toml";
    std::error_code absent;
    return line.resume && std::filesystem::exists(file, absent) ? read_file(file, kMaxRecipeBytes)
                                                                : std::string();
  });
  settle_slices(&*recipe, saved, ranks.size());
  return recipe;
}

int run_with(const CommandLine& line, RunRanks& ranks) {
  const auto recipe = recipe_of(line, ranks);
  if (!recipe) return static_cast<int>(ErrorCode::kUsage);
  install_signal_handlers();
  if (ranks.several())
    ranks.together(
        [&] { check_rank_device(open_device(line.device, recipe->base), ranks.size()); });
  Run run(line, *recipe, ranks);
  int signal = 0;
  // The failure itself is what counts; the report is of what there is.
  const auto report = [&] {
    ranks.yield_to_loss();
    if (!ranks.several() || (ranks.writes() && run.started())) try {
        const detail::WaitScope reading;
        write_report(run.path(), report_text(*recipe));
      } catch (const Error&) {
      }
  };
  // What the machine lacked may be there the next time.
  const auto advice = [&](ErrorCode code) {
    const bool passing = code == ErrorCode::kIo || code == ErrorCode::kMemory;
    return passing && run.started()
               ? "\nthe last checkpoints stand; to go on when the cause is gone:\n  " +
                     resume_command(line, run.path())
               : "";
  };
  try {
    signal = run.run();
  } catch (const SharedError& e) {
    report();
    ranks.write_status("failed", static_cast<int>(e.code()), e.rank(), e.what());
    throw SharedError(e.code(), e.what() + advice(e.code()), e.rank());
  } catch (const Error& e) {
    report();
    ranks.write_status("failed", static_cast<int>(e.code()), 0, e.what());
    fail(e.code(), e.what(), advice(e.code()));
  } catch (const std::bad_alloc&) {
    report();
    ranks.write_status("failed", static_cast<int>(ErrorCode::kMemory), 0, "out of memory");
    fail(ErrorCode::kMemory, "out of memory", advice(ErrorCode::kMemory));
  }
  ranks.on_writer([&] { write_report(run.path(), report_text(*recipe)); });
  if (signal != 0) {
    const std::string told =
        join("stopped by ", signal_name(signal), " ",
             run.checkpointed() ? "after a checkpoint" : "before the first checkpoint");
    if (ranks.writes())
      std::fprintf(stderr, "%s; to go on:\n  %s\n", told.c_str(),
                   resume_command(line, run.path()).c_str());
    ranks.write_status("stopped", exit_code_of(signal), 0, told);
    return exit_code_of(signal);
  }
  if (ranks.writes()) {
    std::fputs(results_table(run.path(), report_text(*recipe)).c_str(), stdout);
    std::printf("%s/report.html\n", run.path().c_str());
  }
  if (run.failed().empty()) {
    ranks.write_status("done", 0, 0, "");
    return 0;
  }
  std::fflush(stdout);
  std::string list;
  for (const FailedJob& job : run.failed()) list += "\n  " + job.title + ": " + job.reason;
  const std::string what = join(
      run.failed().size(), " of ", run.jobs(),
      " jobs failed; the results of the others stand:", list,
      "\na smaller lr or a clip_norm (arm.NAME.train.lr=...) may help; the failed ones are tried "
      "again, each from its last checkpoint, by\n  ",
      resume_command(line, run.path()), " --retry-failed");
  ranks.write_status("failed", static_cast<int>(ErrorCode::kNumerics), 0, what);
  throw SharedError(ErrorCode::kNumerics, what, 0);
}

// What all ranks know rank 0 tells, and all end in order; what one knows it tells itself.
int run_on_ranks(const CommandLine& line, Communicator& communicator) {
  RunRanks ranks(communicator);
  const auto tell = [&](const Error& e) {
    std::fflush(stdout);
    if (e.code() == kStopped) {
      if (ranks.writes())
        std::fprintf(stderr, "kdtrain: %s: %s\n", signal_name(stop_requested()), e.what());
      return exit_code_of(stop_requested());
    }
    if (ranks.writes())
      std::fprintf(stderr, "kdtrain: error[%s]: %s\n", error_row(e.code(), e.what()).code,
                   e.what());
    return static_cast<int>(e.code());
  };
  // Ranks that are out of step cannot meet at the end.
  const auto leave = [&](const Error& e) {
    const int code = tell(e);
    if (!ranks.writes()) std::this_thread::sleep_for(std::chrono::seconds(2));
    _exit(code);
  };
  int status = 0;
  try {
    status = run_with(line, ranks);
  } catch (const SharedError& e) {
    if (e.code() == ErrorCode::kPeer) leave(e);
    status = tell(e);
  } catch (const Error& e) {
    ranks.yield_to_loss();
    if (ranks.out_of_step()) leave(e);
    // All may have met the same: then rank 0 tells it, and its end is that of all.
    if (!ranks.writes()) std::this_thread::sleep_for(std::chrono::seconds(1));
    throw;
  }
  ranks.end();
  return status;
}

}  // namespace

int run_command(const CommandLine& line) {
  if (launched_together())
    return with_ranks(line,
                      [&](Communicator& communicator) { return run_on_ranks(line, communicator); });
  RunRanks ranks;
  return run_with(line, ranks);
}

}  // namespace retort::tools
