// What a job's steps cost: samples per second, the share of each phase, memory by role.
#pragma once
#include <chrono>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "distill/phase_timer.h"
#include "engine/distributed/communicator.h"
#include "engine/io/json.h"
#include "engine/runtime/allocator.h"

namespace retort::tools {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start);

/// Throughput between two log lines. Evaluation and checkpoints are left out by pause().
class StepCosts {
 public:
  /// ranks: who shares the steps; null: nobody.
  explicit StepCosts(distill::PhaseTimer& timer, const Communicator* ranks = nullptr)
      : timer_(timer), ranks_(ranks) {}
  void start();
  /// A step with so many samples, of all ranks.
  void add(std::int64_t samples);
  /// Time since `begin` was not spent on steps.
  void leave_out(Clock::time_point begin);
  /// Adds samples_per_s and, where the timer is on, share_<phase> (of the time since the last
  /// call; what is missing to 1 is the loop itself and waiting for files) to the line; starts anew.
  /// With several ranks, how many (`ranks`) and share_exchange: of the time in which this one moved
  /// bytes of a step and waited for others.
  void log(Json* line);
  /// "1234 samples/s: teacher 20, student 25, loss 1, backward 50, update 2, data 1 %", of the last
  /// line.
  const std::string& text() const { return text_; }
  /// Seconds of the last line's steps in which this rank did not wait for others.
  double own_seconds() const { return own_s_; }

 private:
  distill::PhaseTimer& timer_;
  const Communicator* ranks_;
  double exchange_s_ = 0, seconds_ = 0;  // of steps since the last line; of the ranks so far
  double own_s_ = 0;
  Clock::time_point begin_ = Clock::now();
  std::int64_t samples_ = 0;
  std::string text_;
};

/// Of ranks that share each step: who is slow? Others wait for it in every step.
class SlowRank {
 public:
  /// Seconds that each rank has computed, of the same steps. A sentence's end once one of them needs
  /// half as much again as the median (of two: as the other), and a second more: "computes 1.8 times
  /// as long as the median of the ranks"; then its rank. Told once of a rank.
  std::optional<std::pair<int, std::string>> look(const std::vector<double>& seconds);

 private:
  std::vector<double> sums_;
  std::set<int> told_;
};

/// Adds memory_mib (peak of the process's tensors) and memory_<role>_mib (peak of each role; peaks
/// may be at different times, so their sum may be larger). Since reset_peak_memory. "data" is what
/// is read and written: images, batches, checkpoints on their way to the disk.
void log_memory(Json* line, const MemoryStatistics& memory);
/// "peak 312.5 MiB (activations 200.1, parameters 50.2, ...)".
std::string memory_text(const MemoryStatistics& memory);

double mebibytes(std::size_t bytes);

}  // namespace retort::tools
