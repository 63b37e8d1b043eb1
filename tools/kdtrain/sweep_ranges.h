// What a sweep draws: a key of the recipe and where its values come from.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace retort::tools {

/// One line of sweep.ranges: "KEY = log(LOW, HIGH)", "KEY = uniform(LOW, HIGH)", "KEY =
/// integers(LOW, HIGH)" (both included) or "KEY = choice(A, B, ...)". KEY is what may stand on the
/// command line: "train.lr", "arm.kd.distill.temperature", "task.finetune.train.lr".
struct SweepRange {
  enum class Kind : std::uint8_t { kLog, kUniform, kIntegers, kChoice };
  std::string key;
  Kind kind = Kind::kChoice;
  double low = 0, high = 0;          // of all but kChoice
  std::vector<std::string> choices;  // of kChoice, as typed
  std::string text;                  // "log(1e-05, 0.001)"

  /// The value of a trial, as typed: a function of these three and the range alone, so that more
  /// trials leave the first ones as they are. Reals have four significant digits.
  std::string draw(std::int64_t seed, std::int64_t trial) const;
  /// Its ends, or all of its choices, as typed.
  std::vector<std::string> corners() const;
};

/// Errors    kUsage that says what is wrong with the line.
SweepRange parse_sweep_range(const std::string& line);

}  // namespace retort::tools
