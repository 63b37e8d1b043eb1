#include "curriculum/pacing/pacing.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/check.h"

namespace retort::curriculum {
namespace {

constexpr PacingKind kKinds[] = {
    PacingKind::kFull,       PacingKind::kFixedExponential, PacingKind::kVariedExponential,
    PacingKind::kSingleStep, PacingKind::kLinear,           PacingKind::kQuadratic,
    PacingKind::kRoot,       PacingKind::kExponential,      PacingKind::kLogarithmic,
    PacingKind::kStep,       PacingKind::kCompetence};

// min(1, s0 inc^k) without overflow for large k.
double grown(double start, double increase, std::int64_t k) {
  return std::min(1.0, start * std::pow(increase, static_cast<double>(k)));
}

}  // namespace

const char* name_of(PacingKind kind) {
  switch (kind) {
    case PacingKind::kFull: return "full";
    case PacingKind::kFixedExponential: return "fixed_exponential";
    case PacingKind::kVariedExponential: return "varied_exponential";
    case PacingKind::kSingleStep: return "single_step";
    case PacingKind::kLinear: return "linear";
    case PacingKind::kQuadratic: return "quadratic";
    case PacingKind::kRoot: return "root";
    case PacingKind::kExponential: return "exp";
    case PacingKind::kLogarithmic: return "log";
    case PacingKind::kStep: return "step";
    case PacingKind::kCompetence: return "competence";
  }
  return "?";
}

PacingKind parse_pacing_kind(const std::string& text) {
  for (const PacingKind kind : kKinds)
    if (text == name_of(kind)) return kind;
  if (text == "none") return PacingKind::kFull;
  if (text == "quad") return PacingKind::kQuadratic;
  std::string names;
  for (const PacingKind kind : kKinds) names += join(names.empty() ? "" : ", ", name_of(kind));
  fail(ErrorCode::kUsage, "[pacing] expected one of ", names, "; got '", text, "'");
}

double pacing_fraction(const PacingOptions& o, std::int64_t step) {
  RETORT_CHECK(step >= 0, "[pacing] expected a step >= 0, got ", step);
  if (o.kind == PacingKind::kFull) return 1;
  RETORT_CHECK(o.start > 0 && o.start <= 1, "[pacing] expected a start in (0, 1], got ", o.start);
  switch (o.kind) {
    case PacingKind::kFixedExponential:
    case PacingKind::kVariedExponential: {
      RETORT_CHECK(o.increase > 1 && std::isfinite(o.increase),
                   "[pacing] expected an increase above 1, got ", o.increase);
      RETORT_CHECK(o.step_length >= 1, "[pacing] expected a step length of at least 1, got ",
                   o.step_length);
      if (o.kind == PacingKind::kFixedExponential)
        return grown(o.start, o.increase, step / o.step_length);
      std::int64_t sum = 0, passed = 0;
      for (const std::int64_t length : o.step_lengths) {
        RETORT_CHECK(length >= 1, "[pacing] expected step lengths of at least 1, got ", length);
        sum += length;
        if (sum >= step) return grown(o.start, o.increase, passed);
        ++passed;
      }
      // then every step_length steps: count the k >= 1 with sum + k step_length < step
      if (step > sum) passed += (step - sum - 1) / o.step_length;
      return grown(o.start, o.increase, passed);
    }
    case PacingKind::kSingleStep:
      RETORT_CHECK(o.step_length >= 0, "[pacing] expected a step length >= 0, got ", o.step_length);
      return step <= o.step_length ? o.start : 1;
    default: break;
  }
  RETORT_CHECK(o.total_steps >= 1, "[pacing] '", name_of(o.kind),
               "' needs the total number of steps, got ", o.total_steps);
  const double total = static_cast<double>(o.total_steps), i = static_cast<double>(step);
  if (o.kind == PacingKind::kCompetence)
    return std::min(1.0, std::sqrt(i * (1 - o.start * o.start) / total + o.start * o.start));
  RETORT_CHECK(o.full_at > 0, "[pacing] expected full_at > 0, got ", o.full_at);
  const double t = i / (o.full_at * total);
  double share = 0;  // of the way from b to 1
  switch (o.kind) {
    case PacingKind::kLinear: share = t; break;
    case PacingKind::kQuadratic: share = t * t; break;
    case PacingKind::kRoot: share = std::sqrt(t); break;
    case PacingKind::kExponential:
      share = t >= 1 ? 1 : std::expm1(10 * t) / std::expm1(10.0);
      break;
    case PacingKind::kLogarithmic: share = 1 + 0.1 * std::log(t + std::exp(-10.0)); break;
    default: return t >= 1 ? 1 : o.start;  // kStep: b + floor(t), clipped
  }
  return std::clamp(o.start + (1 - o.start) * share, o.start, 1.0);
}

std::int64_t prefix_size(const PacingOptions& options, std::int64_t step, std::int64_t n,
                         std::int64_t at_least) {
  // The margin keeps a product such as 0.07 * 100 = 7.000000000000001 at 7.
  const double exact = pacing_fraction(options, step) * static_cast<double>(n);
  const auto size = static_cast<std::int64_t>(std::ceil(exact - 1e-9 * static_cast<double>(n)));
  return std::min(n, std::max(size, at_least));
}

}  // namespace retort::curriculum
