// `kdtrain run`: data, teachers, curricula, then arms x seeds.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <mutex>

#include "engine/io/file.h"
#include "engine/runtime/allocator.h"
#include "nn/checkpoint/weights.h"
#include "tools/kdtrain/command_line.h"
#include "tools/kdtrain/jobs.h"
#include "tools/kdtrain/signals.h"
#include "tools/kdtrain/step_costs.h"
#include "tools/kdtrain/teachers.h"
#include "tools/kdtrain/train_loop.h"
#include "tools/report/report.h"

namespace retort::tools {
namespace {

class Run {
 public:
  Run(const CommandLine& line, const Recipe& recipe)
      : recipe_(recipe),
        base_(recipe.base),
        device_(open_device(line.device, recipe.base)),
        jobs_(recipe),
        folder_(line.out.empty() ? "runs/" + recipe.name : line.out, recipe, line.resume),
        log_(folder_.file("metrics.jsonl")) {}

  // Returns the signal that stopped the run, or 0.
  int run() {
    data_ = open_data(base_, jobs_.trains_teacher());
    jobs_.check_lengths(data_);
    check_weights();
    folder_.start(recipe_);
    started_ = true;
    context_.recipe = &recipe_;
    context_.data = &data_;
    context_.folder = &folder_;
    context_.log = &log_;
    context_.progress = &progress_;
    context_.device = device_;
    context_.data_hash = hash_of(data_);
    list_jobs();
    next_phase();
    if (jobs_.needs_teacher() && !run_teachers()) return stopped();
    if (!run_students()) return stopped();
    next_phase();
    progress_.line("memory of tensors: " + memory_text(peak_) + "; the process at most " +
                   std::to_string(process_peak_mib()) + " MiB");
    return 0;
  }

  const std::string& path() const { return folder_.path(); }
  bool started() const { return started_; }
  /// There is something to go on from.
  bool checkpointed() const { return context_.checkpointed; }

 private:
  // Files that are missing or do not fit, and a given teacher that knows nothing, are told before
  // anything is trained or written.
  void check_weights() {
    for (const Arm& arm : recipe_.arms)
      if (const std::string& file = arm.settings.text("student.weights"); !file.empty())
        nn::load_weights(*build_model(arm.settings, "student", data_, 0),
                         find_weights(base_, file));
    if (!jobs_.needs_teacher() || jobs_.trains_teacher()) return;
    const std::string file = find_weights(base_, base_.text("teacher.weights"));
    teachers_.push_back(load_teacher_set(jobs_, 0, data_, device_, {file, ""}));
  }

  struct LoggedJob {
    std::size_t log_job = 0;
    bool finished = false;
  };

  LoggedJob add_job(const std::string& arm, std::int64_t seed) {
    std::optional<JobState> state;
    if (folder_.resuming()) state = read_job_state(folder_.arm_folder(arm, seed));
    const bool finished = state && state->finished;
    RETORT_CHECK_AS(kBadInput, !state || state->data == context_.data_hash,
                    "[resume] the data is not what ", arm, "/", seed, " began with: it was ",
                    state->data, ", is ", context_.data_hash);
    return {log_.add_job(state ? state->lines : "", finished), finished};
  }

  void list_jobs() {
    double steps = 0;
    if (jobs_.needs_teacher())
      for (const std::int64_t seed : jobs_.teacher_seeds()) {
        logged_teachers_.push_back(jobs_.trains_teacher() ? add_job("teacher", seed)
                                                          : LoggedJob{log_.add_job("", false)});
        if (jobs_.trains_teacher()) steps += static_cast<double>(jobs_.teacher_steps(data_));
      }
    for (const StudentJob& job : jobs_.students()) {
      logged_students_.push_back(add_job(job.arm->name, job.number));
      steps += static_cast<double>(jobs_.student_steps(job, data_));
    }
    log_.open();
    const std::size_t arms = recipe_.arms.size(), runs = jobs_.students().size() / arms;
    progress_.set_total(
        static_cast<std::int64_t>(logged_students_.size() + logged_teachers_.size()), steps);
    std::fprintf(stderr, "%s: %s on %s, %zu arm%s x %zu run%s, folder %s%s\n", recipe_.name.c_str(),
                 data_.description.c_str(), name_of(device_), arms, arms == 1 ? "" : "s", runs,
                 runs == 1 ? "" : "s", folder_.path().c_str(),
                 folder_.resuming() ? " (resumed)" : "");
  }

  // Jobs side by side; when one fails the others stop at a checkpoint.
  void run_all(std::size_t count, const std::function<void(std::size_t)>& body) {
    run_jobs(count, jobs_at_once(base_, device_, count), [&](std::size_t i) {
      try {
        body(i);
      } catch (...) {
        context_.abort = true;
        throw;
      }
    });
  }

  static long process_peak_mib() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss / 1024;
  }

  // Peaks count anew; the whole run's are kept. Blocks that the last phase left in the cache have
  // sizes that the next one hardly asks for.
  void next_phase() {
    const MemoryStatistics now = memory_statistics(device_);
    peak_.peak_bytes = std::max(peak_.peak_bytes, now.peak_bytes);
    for (std::size_t r = 0; r < now.peak_by_role.size(); ++r)
      peak_.peak_by_role[r] = std::max(peak_.peak_by_role[r], now.peak_by_role[r]);
    reset_peak_memory(device_);
    release_cached_memory(device_);
  }

  int stopped() {
    const int signal = stop_requested();
    return signal == 0 ? -1 : signal;
  }

  // -- teachers -----------------------------------------------------------------------------------
  bool run_teachers() {
    const std::size_t count = jobs_.teacher_seeds().size();
    std::atomic<bool> complete = true;
    if (jobs_.trains_teacher())
      run_all(count, [&](std::size_t t) {
        if (!train_teacher(t)) complete = false;
      });
    if (!complete) return false;
    for (std::size_t t = 0; t < count; ++t) {
      if (stop_requested() != 0) return false;
      if (jobs_.trains_teacher()) {
        const std::string folder = folder_.arm_folder("teacher", jobs_.teacher_seeds()[t]);
        teachers_.push_back(
            load_teacher_set(jobs_, t, data_, device_, {folder + "/model.safetensors", folder}));
      }
      TeacherSet& set = teachers_[t];
      const auto start = Clock::now();
      measure_teacher(jobs_, data_, device_, &set);
      for (const Arm& arm : recipe_.arms)
        if (auto notes = notes_of_arm(arm, set, data_, device_); !notes.empty())
          arm_notes_[{arm.name, t}] = std::move(notes);
      if (!jobs_.trains_teacher())
        log_given_teacher(set, data_, probe(fresh_copy(set), t), seconds_since(start), &log_,
                          logged_teachers_[t].log_job);
    }
    return true;
  }

  bool train_teacher(std::size_t t) {
    TrainingPlan plan = jobs_.teacher_plan(t, data_);
    plan.final_metrics = [this, t](const std::shared_ptr<nn::Model>& model) {
      return probe(model, t);
    };
    if (run_job(context_, plan, logged_teachers_[t].log_job) != Outcome::kFinished) return false;
    log_.finish(logged_teachers_[t].log_job);
    progress_.finish("teacher/" + std::to_string(plan.seed), jobs_.teacher_steps(data_));
    return true;
  }

  // The degree-1 probe as metrics, where the recipe asks for it.
  std::map<std::string, double> probe(const std::shared_ptr<nn::Model>& model,
                                      std::size_t t) const {
    if (!base_.flag("train.probe") || !data_.parity) return {};
    return probe_teacher(model, jobs_.fresh_teacher(t, data_), base_, data_, device_);
  }

  std::shared_ptr<nn::Model> fresh_copy(const TeacherSet& set) const {
    std::shared_ptr<nn::Model> model = build_model(base_, "teacher", data_, 0);
    const auto from = set.final->model().named_parameters();
    const auto to = model->named_parameters();
    for (std::size_t i = 0; i < to.size(); ++i) to[i].second.copy_from(from[i].second);
    model->to(device_);
    return model;
  }

  // -- students -----------------------------------------------------------------------------------
  std::shared_ptr<const Curriculum> curriculum_for(const Arm& arm, std::size_t t) {
    if (arm.settings.text("train.order") != "curriculum") return nullptr;
    const std::string name = curriculum_name(arm.settings, teachers_[t], jobs_.several_teachers());
    auto& slot = curricula_[name];
    if (!slot) {
      slot = make_curriculum(arm.settings, name, teachers_[t], *data_.student);
      make_folders(folder_.file("curriculum"));
      write_file_atomically(folder_.file("curriculum/" + name + ".csv"), slot->csv);
    }
    return slot;
  }

  bool run_students() {
    for (const StudentJob& job : jobs_.students()) curriculum_for(*job.arm, job.teacher);
    next_phase();  // the final lines of students tell of students
    std::atomic<bool> complete = true;
    run_all(jobs_.students().size(), [&](std::size_t i) {
      if (!run_student(jobs_.students()[i], logged_students_[i])) complete = false;
    });
    return complete;
  }

  bool run_student(const StudentJob& job, const LoggedJob& logged) {
    if (!logged.finished) {
      if (stop_requested() != 0 || context_.abort) return false;
      const TrainingPlan plan = student_plan(job);
      if (run_job(context_, plan, logged.log_job) != Outcome::kFinished) return false;
      log_.finish(logged.log_job);
      write_report_quietly();
    }
    progress_.finish(job.arm->name + "/" + std::to_string(job.number),
                     jobs_.student_steps(job, data_));
    return true;
  }

  TrainingPlan student_plan(const StudentJob& job) {
    std::shared_ptr<const Curriculum> curriculum;
    {
      const std::lock_guard lock(mutex_);
      curriculum = curriculum_for(*job.arm, job.teacher);
    }
    TrainingPlan plan = jobs_.student_plan(
        job, data_, jobs_.needs_teacher() ? &teachers_[job.teacher] : nullptr, curriculum);
    if (const std::string& weights = job.arm->settings.text("student.weights"); !weights.empty()) {
      const nn::WeightsInfo info = nn::load_weights(*plan.model, find_weights(base_, weights));
      if (const auto at = info.metadata.find("normalize");
          at != info.metadata.end() && job.arm->settings.is_default("student.normalize"))
        plan.normalize = normalize_of_text(at->second);
    }
    if (const auto at = arm_notes_.find({plan.arm, job.teacher}); at != arm_notes_.end())
      for (const std::string& problem : at->second)
        plan.notes.push_back(
            "allowed untrained teacher" +
            (jobs_.several_teachers() ? " " + std::to_string(teachers_[job.teacher].seed) : "") +
            ": " + problem);
    if (curriculum)
      plan.notes.insert(plan.notes.end(), curriculum->warnings.begin(), curriculum->warnings.end());
    return plan;
  }

  void write_report_quietly() {
    if (data_.parity) return;  // many short jobs: once at the end
    const std::lock_guard lock(mutex_);
    try {
      write_report(folder_.path(), report_text(recipe_));
    } catch (const Error& e) {  // the next one, or the last, tells
      progress_.line(std::string("note: no report yet: ") + e.what());
    }
  }

  const Recipe& recipe_;
  const Settings& base_;
  Device device_;
  JobList jobs_;
  RunFolder folder_;
  bool started_ = false;
  MetricsLog log_;
  Progress progress_;
  RunContext context_;
  ExperimentData data_;
  std::vector<LoggedJob> logged_teachers_, logged_students_;  // beside jobs_
  std::vector<TeacherSet> teachers_;
  std::map<std::string, std::shared_ptr<const Curriculum>> curricula_;
  std::map<std::pair<std::string, std::size_t>, std::vector<std::string>> arm_notes_;  // teacher
  MemoryStatistics peak_;
  std::mutex mutex_;
};

// A word as a shell takes it.
std::string shell_word(const std::string& word) {
  const auto plain = [](unsigned char c) {
    return std::isalnum(c) || std::strchr("_./=:,+-%@", c);
  };
  if (!word.empty() && std::all_of(word.begin(), word.end(), plain)) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string resume_command(const CommandLine& line, const std::string& folder) {
  std::string again = "kdtrain run";
  if (!line.subject.empty()) again += " " + shell_word(line.subject);
  for (const std::string& word : line.words) again += " " + shell_word(word);
  if (line.device != "auto") again += " --device " + line.device;
  if (line.threads > 0) again += " --threads " + std::to_string(line.threads);
  return again + " --out " + shell_word(folder) + " --resume";
}

}  // namespace

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
  std::fputs(results_table(run.path()).c_str(), stdout);
  std::printf("%s/report.html\n", run.path().c_str());
  return 0;
}

}  // namespace retort::tools
