// ES-KD: the teacher's share ends part-way.
#pragma once
#include <cstdint>

#include "nn/options.h"

namespace retort::curriculum {

/// The key distill.cutoff: up to 1 a fraction of the run, above 1 a step; 1 never cuts.
nn::OptionSpec cutoff_option();

/// The first step without the teacher: round(cutoff T) for cutoff < 1, round(cutoff) above 1, and a
/// step that no run reaches for 1.
/// Errors    kUsage for a cutoff that is not >= 0, or T < 0.
std::int64_t cutoff_step(double cutoff, std::int64_t total_steps);

/// lambda before the cut-off, 0 from it on.
/// Source    Cho, Hariharan 2019, arXiv:1910.01348 (early-stopped knowledge distillation).
inline double apply_cutoff(double lambda, std::int64_t cutoff_step, std::int64_t step) {
  return step < cutoff_step ? lambda : 0.0;
}

}  // namespace retort::curriculum
