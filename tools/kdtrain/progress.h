// What a person sees while a run goes on: one line that is rewritten on a terminal, plain lines
// otherwise. Standard error only.
#pragma once
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "nn/data/dataset.h"

namespace retort::tools {

/// On a terminal the line is rewritten each second while anything goes on, with the time so far;
/// when nothing does it is gone, so that what is printed next stands alone. Threads: all calls may
/// come from several.
class Progress {
 public:
  /// quiet: nothing is shown, of a rank that does not print.
  explicit Progress(bool quiet = false);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  /// Of all jobs, for the share and the time left.
  void set_total(std::int64_t jobs, double steps);

  /// A job is at `step` of `steps`; text such as "loss 1.23 acc 0.45". Cheap: the terminal is
  /// touched at most ten times a second.
  void update(const std::string& job, std::int64_t step, std::int64_t steps,
              const std::string& text);
  /// Something that is no step of a job goes on, such as "scoring teacher/1": for long loops, each
  /// time around; total 0: how much there is to do is not known. Plain output gets a line of it
  /// each half minute. rest() says that it is over.
  void beat(const std::string& what, std::int64_t done = 0, std::int64_t total = 0);
  void rest(const std::string& what);
  /// A line that stays: an evaluation, a note.
  void line(const std::string& text);
  /// A job ended (its remaining steps are done, too).
  void finish(const std::string& job, std::int64_t steps);

 private:
  void draw(bool force);
  void erase();
  void tick();

  bool quiet_, terminal_ = false;
  std::mutex mutex_;
  std::map<std::string, std::pair<std::int64_t, std::string>> running_;
  std::map<std::string, std::string> beating_;  // "3/10", or nothing
  double total_ = 0, done_ = 0;
  std::int64_t jobs_ = 0, finished_ = 0;
  bool drawn_ = false, ended_ = false;
  std::chrono::steady_clock::time_point start_, last_, last_beat_;
  std::condition_variable end_;
  std::thread ticker_;  // on a terminal
};

/// beat() while it lives, rest() at its end. progress may be null.
class Beat {
 public:
  Beat(Progress* progress, std::string what, std::int64_t total = 0)
      : progress_(progress), what_(std::move(what)), total_(total) {
    if (progress_ != nullptr) progress_->beat(what_, 0, total_);
  }
  ~Beat() {
    if (progress_ != nullptr) progress_->rest(what_);
  }
  Beat(const Beat&) = delete;
  Beat& operator=(const Beat&) = delete;
  /// For MeasureOptions::each: samples are counted.
  std::function<void(const nn::Batch&, const nn::Outputs&)> of_batches() const;
  /// The same for a pass in which nothing can be lost: Error(kStopped) once a stop is wanted
  /// (retort::stop_wanted; ranks stop together, behind the pass).
  std::function<void(const nn::Batch&, const nn::Outputs&)> of_batches_until_stopped() const;

 private:
  Progress* progress_;
  std::string what_;
  std::int64_t total_;
};

}  // namespace retort::tools
