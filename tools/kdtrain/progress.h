// What a person sees while a run goes on: one line that is rewritten on a terminal, plain lines
// otherwise. Standard error only.
#pragma once
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace retort::tools {

class Progress {
 public:
  /// total_steps: of all jobs, for the share and the time left.
  Progress();
  ~Progress();
  void set_total(std::int64_t jobs, double steps);

  /// A job is at `step` of `steps`; text such as "loss 1.23 acc 0.45". Cheap: the terminal is
  /// touched at most ten times a second.
  void update(const std::string& job, std::int64_t step, std::int64_t steps,
              const std::string& text);
  /// A line that stays: an evaluation, a note.
  void line(const std::string& text);
  /// A job ended (its remaining steps are done, too).
  void finish(const std::string& job, std::int64_t steps);

 private:
  void draw(bool force);
  void erase();
  bool terminal_;
  std::mutex mutex_;
  std::map<std::string, std::pair<std::int64_t, std::string>> running_;
  double total_ = 0, done_ = 0;
  std::int64_t jobs_ = 0, finished_ = 0;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_, last_;
};

}  // namespace retort::tools
