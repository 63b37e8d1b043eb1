#include "nn/optim/schedule.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/check.h"

namespace retort::nn {

double Schedule::at(std::int64_t step) const {
  if (step < warmup)
    return base * (warmup_start +
                   (1 - warmup_start) * static_cast<double>(step) / static_cast<double>(warmup));
  const double progress =
      std::min(1.0, static_cast<double>(step - warmup) /
                        static_cast<double>(std::max<std::int64_t>(1, total - warmup)));
  switch (kind) {
    case Kind::kConstant: return base;
    case Kind::kStep: {
      const auto passed = std::upper_bound(milestones.begin(), milestones.end(), step);
      return base * std::pow(gamma, static_cast<double>(passed - milestones.begin()));
    }
    case Kind::kCosine:
      return final + (base - final) * (1 + std::cos(3.14159265358979323846 * progress)) / 2;
    case Kind::kLinear: return base + (final - base) * progress;
  }
  return base;
}

void Schedule::check() const {
  RETORT_CHECK(std::isfinite(base) && base >= 0, "[schedule] expected a learning rate >= 0, got ",
               base);
  RETORT_CHECK(std::isfinite(final) && final >= 0,
               "[schedule] expected a final learning rate >= 0, got ", final);
  RETORT_CHECK(warmup >= 0, "[schedule] expected warm-up steps >= 0, got ", warmup);
  RETORT_CHECK(warmup_start >= 0 && warmup_start <= 1,
               "[schedule] expected the warm-up to start at 0 to 1 times the rate, got ",
               warmup_start);
  RETORT_CHECK((kind != Kind::kCosine && kind != Kind::kLinear) || total > warmup,
               "[schedule] expected more steps than the warm-up's ", warmup, ", got ", total);
  RETORT_CHECK(std::is_sorted(milestones.begin(), milestones.end()),
               "[schedule] expected milestones in ascending order");
  RETORT_CHECK(std::isfinite(gamma) && gamma > 0, "[schedule] expected gamma > 0, got ", gamma);
}

const std::vector<std::string>& schedule_names() {
  static const std::vector<std::string> names{"constant", "step", "cosine", "linear"};
  return names;
}

Schedule::Kind parse_schedule(const std::string& name) {
  const std::vector<std::string>& names = schedule_names();
  const auto at = std::find(names.begin(), names.end(), name);
  RETORT_CHECK(at != names.end(), "[schedule] expected constant, step, cosine or linear, got '",
               name, "'");
  return static_cast<Schedule::Kind>(at - names.begin());
}

}  // namespace retort::nn
