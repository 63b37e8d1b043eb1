// From the keys of [train] or [teacher.train] to the objects that training is made of.
#pragma once
#include "curriculum/sampling/sampler.h"
#include "curriculum/schedules/reliance.h"
#include "distill/schedules/staged.h"
#include "nn/optim/schedule.h"
#include "tools/kdtrain/recipe.h"

namespace retort::tools {

/// Steps of one epoch: of batch samples, or of batch_tokens tokens. `section` is "train" or
/// "teacher.train" in all of these.
std::int64_t epoch_steps(const Settings& settings, const std::string& section,
                         const nn::Dataset& data);
/// Steps that training will take.
std::int64_t planned_steps(const Settings& settings, const std::string& section,
                           const nn::Dataset& data);

nn::Schedule schedule_of(const Settings& settings, const std::string& section, std::int64_t steps);

curriculum::SamplerOptions sampler_options(const Settings& settings, const std::string& section,
                                           std::uint64_t key, std::int64_t steps,
                                           const nn::Dataset& data);

curriculum::RelianceOptions reliance_options(const Settings& settings);

/// Slices that each batch is cut into: 1 where nothing says more.
std::int64_t slices_of(const Settings& settings, const std::string& section);

/// Keeps a reference to the settings. bf16_copy, ranks: see nn::OptimizerConfig.
distill::OptimizerFactory optimizer_factory(const Settings& settings, const std::string& section,
                                            bool bf16_copy, Communicator* ranks = nullptr);

/// What to say at the start of a model whose batch norms see few samples at a time, because batches
/// are cut into slices; "": nothing.
std::string told_of_slices(const Settings& settings, const std::string& section,
                           const nn::Module& model);

/// The teacher's share of the soft targets where nothing says it batch by batch: distill.lambda, or
/// that of distill.loss = "distilbert_triple" (of weight 7, so that 2 CE + 5 tau^2 KL come out).
double lambda_of(const Settings& settings);

/// What a distillation stage minimises: the soft targets, what distill.loss puts beside them, and the
/// terms whose weight is not 0. `key` is of the student: what a term draws is a function of it and the term's name.
distill::Terms terms_of(const Settings& settings, std::uint64_t key);

}  // namespace retort::tools
