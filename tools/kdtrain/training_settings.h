// From the keys of [train] or [teacher.train] to the objects that training is made of.
#pragma once
#include "curriculum/sampling/sampler.h"
#include "curriculum/schedules/reliance.h"
#include "distill/schedules/staged.h"
#include "nn/optim/schedule.h"
#include "tools/kdtrain/recipe.h"

namespace retort::tools {

/// Steps that training will take. `section` is "train" or "teacher.train" in all of these.
std::int64_t planned_steps(const Settings& settings, const std::string& section,
                           std::int64_t samples);

nn::Schedule schedule_of(const Settings& settings, const std::string& section, std::int64_t steps);

curriculum::SamplerOptions sampler_options(const Settings& settings, const std::string& section,
                                           std::uint64_t key, std::int64_t steps);

curriculum::RelianceOptions reliance_options(const Settings& settings);

/// Keeps a reference to the settings. bf16_copy: see nn::OptimizerConfig.
distill::OptimizerFactory optimizer_factory(const Settings& settings, const std::string& section,
                                            bool bf16_copy);

distill::Divergence divergence_of(const Settings& settings);

/// "f32" or "bf16", the value of a key such as train.precision: dtype of inputs and activations.
DType precision_of(const Settings& settings, const std::string& key);

}  // namespace retort::tools
