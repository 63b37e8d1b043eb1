// Learning-rate schedules: pure functions of the step, so a resumed run needs no state.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace retort::nn {

/// Units    `step`, `total`, `warmup` and `milestones` count in one unit: optimiser steps, or
///          epochs, as the caller likes.
///
///   warm-up (s < warmup)   base * (f + (1 - f) s / warmup),  f = warmup_start
///   then, with t = s - warmup and T = total - warmup:
///   constant               base
///   step                   base * gamma^(number of milestones <= s)
///   cosine                 final + (base - final) (1 + cos(pi t / T)) / 2
///   linear                 base + (final - base) t / T
///
/// At and after `total` cosine and linear stay at `final`.
struct Schedule {
  enum class Kind : std::uint8_t { kConstant, kStep, kCosine, kLinear };
  Kind kind = Kind::kConstant;
  double base = 0.1;
  double final = 0;                           // cosine, linear
  std::int64_t total = 0;                     // cosine, linear: > warmup
  std::vector<std::int64_t> milestones = {};  // step: ascending
  double gamma = 0.1;                         // step
  std::int64_t warmup = 0;
  double warmup_start = 0;

  double at(std::int64_t step) const;
  /// Throws Error(kUsage) naming the setting that makes no sense.
  void check() const;
};

/// "constant", "step", "cosine", "linear": in the order of the kinds.
const std::vector<std::string>& schedule_names();
/// Error(kUsage) for another name.
Schedule::Kind parse_schedule(const std::string& name);

}  // namespace retort::nn
