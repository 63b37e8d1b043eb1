#include "curriculum/schedules/cutoff.h"

#include <cmath>
#include <limits>

#include "kernels/common/check.h"

namespace retort::curriculum {

nn::OptionSpec cutoff_option() {
  return nn::number_option("cutoff", 1, 0, 1e9, "fraction of the run, or steps",
                           "ES-KD: lambda is 0 from here on; above 1 a step, 1: never.");
}

std::int64_t cutoff_step(double cutoff, std::int64_t total_steps) {
  RETORT_CHECK(cutoff >= 0 && cutoff <= 1e15, "[cutoff] expected a fraction or a step, got ",
               cutoff);
  RETORT_CHECK(total_steps >= 0, "[cutoff] expected a number of steps, got ", total_steps);
  if (cutoff == 1) return std::numeric_limits<std::int64_t>::max();
  return std::llround(cutoff < 1 ? cutoff * static_cast<double>(total_steps) : cutoff);
}

}  // namespace retort::curriculum
