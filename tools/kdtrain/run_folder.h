// The run folder and its metrics.jsonl.
//
// Note [Log of parallel jobs]
//   A run is a list of jobs (teachers, then arms x seeds) in a fixed order. Some run at the same
//   time, yet metrics.jsonl holds their lines job after job: lines of the first unfinished job go
//   to the file at once, those of later ones wait in memory until their turn. A job's checkpoint
//   holds all lines it wrote so far, so a resumed run rebuilds the file from the checkpoints, and
//   it equals that of a run that was never stopped.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/io/manifest.h"
#include "kernels/common/context.h"
#include "tools/kdtrain/recipe.h"
#include "tools/report/report.h"

namespace retort::tools {

class RunFolder {
 public:
  /// Makes the folder, locks it against other runs (flock; kUsage if held) and checks that it is
  /// empty or, with `resume`, that it was made by the same recipe (recipe_identity.h; naming the keys
  /// that may not differ, but do). retrying: jobs that failed are tried again. Temporary files that a killed run left are removed; a folder that holds nothing else is empty.
  RunFolder(const std::string& path, const Recipe& recipe, bool resume, bool retrying = false,
            Device device = Device::kCpu);
  /// On a rank that has none of its own: nothing is written. mirror: where files of it are handed out
  /// to (run_ranks.h); changes: of rank 0's.
  RunFolder(std::string mirror, bool resuming, std::vector<std::string> changes)
      : path_(std::move(mirror)), resuming_(resuming), changes_(std::move(changes)) {}
  ~RunFolder();  // unlocks; removes the folder if it was made here and nothing was written
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::string& path() const { return path_; }
  bool writes() const { return descriptor_ >= 0; }
  /// True if there is an earlier run to go on from.
  bool resuming() const { return resuming_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  /// Of a job: an arm or a model with a seed, in a task of the recipe ("" where it has none).
  std::string job_folder(const std::string& arm, std::int64_t seed,
                         const std::string& task = "") const {
    return path_ + "/arms/" + arm + "/seed" + std::to_string(seed) +
           (task.empty() ? "" : "/" + task);
  }
  /// Writes a file that is the same in every sitting, such as a curriculum, and records it.
  /// Errors    kBadInput if an earlier sitting wrote another content.
  void write_once(const std::string& name, const std::string& text);
  /// Writes recipe.resolved.toml, unless it stands. head: comments in front of it.
  void start(const Recipe& recipe, const std::string& head);
  /// What differs from the recipe that the folder was made by, and may.
  const std::vector<std::string>& changes() const { return changes_; }

 private:
  std::string path_;
  int descriptor_ = -1;
  bool resuming_ = false, created_ = false;
  std::vector<std::string> changes_;
  std::unique_ptr<FileManifest> files_;
};

/// The report's headline and the arms' labels.
ReportText report_text(const Recipe& recipe);

/// See Note [Log of parallel jobs]. Threads: all calls may come from several threads.
class MetricsLog {
 public:
  /// path: "" on a rank that writes none.
  explicit MetricsLog(std::string path) : path_(std::move(path)) {}
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  /// Adds a job at the end of the order, with the lines of its checkpoint; all before open().
  std::size_t add_job(std::string lines, bool finished);
  /// Rewrites the file with what is known, and keeps it open for appending.
  void open();
  /// Appends one line (without newline) for a job. Throws Error(kIo); the file then still ends
  /// with a whole line.
  void write(std::size_t job, const std::string& line);
  void finish(std::size_t job);

 private:
  struct Job {
    std::string waiting;  // lines that are not in the file yet
    bool finished = false;
  };
  void append(const std::string& text);
  std::string path_;
  std::mutex mutex_;
  std::vector<Job> jobs_;
  std::size_t current_ = 0;  // the first unfinished job
  int descriptor_ = -1;
};

}  // namespace retort::tools
