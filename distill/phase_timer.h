// Where the time of a step goes, at the cost of one clock reading per phase.
#pragma once
#include <array>
#include <chrono>
#include <cstdint>

#include "kernels/common/context.h"

namespace retort::distill {

enum class Phase : std::uint8_t { kData, kTeacher, kStudent, kLoss, kBackward, kUpdate };
inline constexpr int kPhases = 6;

/// Adds up seconds by phase over many steps. Whoever does the work of a phase marks its end.
///
/// A host clock, so on the CPU only: on CUDA launches return before the work is done, and the
/// timer is off (`on()` is false, all sums stay 0) until it records events there.
/// Threads: one timer belongs to one loop.
class PhaseTimer {
 public:
  explicit PhaseTimer(Device device) : on_(device == Device::kCpu) {}

  bool on() const { return on_; }
  /// The time since the last call belongs to no phase.
  void start() {
    if (on_) last_ = Clock::now();
  }
  /// The time since the last call belongs to this phase.
  void mark(Phase phase) {
    if (!on_) return;
    const Clock::time_point now = Clock::now();
    seconds_[static_cast<std::size_t>(phase)] += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }
  double seconds(Phase phase) const { return seconds_[static_cast<std::size_t>(phase)]; }
  void clear() { seconds_ = {}; }

 private:
  using Clock = std::chrono::steady_clock;
  bool on_;
  Clock::time_point last_ = Clock::now();
  std::array<double, kPhases> seconds_{};
};

inline const char* name_of(Phase phase) {
  switch (phase) {
    case Phase::kData: return "data";
    case Phase::kTeacher: return "teacher";
    case Phase::kStudent: return "student";
    case Phase::kLoss: return "loss";
    case Phase::kBackward: return "backward";
    case Phase::kUpdate: return "update";
  }
  return "?";
}

}  // namespace retort::distill
