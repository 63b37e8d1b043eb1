// Pacing functions: how much of the ordered data a step may draw from.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace retort::curriculum {

enum class PacingKind : std::uint8_t {
  kFull,
  kFixedExponential,
  kVariedExponential,
  kSingleStep,
  kLinear,
  kQuadratic,
  kRoot,
  kExponential,
  kLogarithmic,
  kStep,
  kCompetence,
};
const char* name_of(PacingKind kind);
/// "full", "fixed_exponential", "varied_exponential", "single_step", "linear", "quadratic", "root",
/// "exp", "log", "step" or "competence" ("none" and "quad" too); anything else throws.
PacingKind parse_pacing_kind(const std::string& text);

struct PacingOptions {
  PacingKind kind = PacingKind::kFull;
  double start = 0.04;             // s0, b, c0: the share of the data at step 0, (0, 1]
  double increase = 1.9;           // inc of the exponentials, > 1
  std::int64_t step_length = 100;  // steps per increase; single_step: steps before the full data
  std::vector<std::int64_t> step_lengths =
      {};                        // varied: the first lengths, then step_length for ever
  double full_at = 0.8;          // a: share of total_steps at which all data is in use
  std::int64_t total_steps = 0;  // T of the Wu family and of competence
};

/// g(i) in (0, 1], i = step counted from 0.
///
///   full                1
///   fixed exponential   min(1, s0 inc^floor(i / step))
///   varied exponential  min(1, s0 inc^#{j : step_1 + .. + step_j < i})
///   single step         s0 if i <= step else 1
///   linear              b + (1-b) t          with t = i / (a T), clipped to 1
///   quad                b + (1-b) t^2
///   root                b + (1-b) t^(1/2)
///   exp                 b + (1-b) (e^(10 t) - 1) / (e^10 - 1)
///   log                 b + (1-b) (1 + 0.1 ln(t + e^-10))
///   step                b + floor(t)
///   competence          min(1, sqrt(i (1 - c0^2) / T + c0^2))
///
/// Errors    kUsage for options out of range, naming the value.
/// Source    Hacohen, Weinshall 2019, arXiv:1904.03626 (exponentials, single step); Wu, Dyer,
///           Neyshabur 2021, arXiv:2012.03107 (the six of t); Platanios et al. 2019,
///           arXiv:1903.09848 (competence).
double pacing_fraction(const PacingOptions& options, std::int64_t step);

/// Samples of the order in use: ceil(g(i) n), at least `at_least` (a batch) and at most n.
std::int64_t prefix_size(const PacingOptions& options, std::int64_t step, std::int64_t n,
                         std::int64_t at_least = 1);

}  // namespace retort::curriculum
