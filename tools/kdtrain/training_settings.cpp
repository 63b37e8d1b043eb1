#include "tools/kdtrain/training_settings.h"

#include <algorithm>
#include <cmath>

#include "distill/terms/registry.h"
#include "kernels/common/philox.h"
#include "tools/kdtrain/curricula.h"

namespace retort::tools {

std::int64_t planned_steps(const Settings& settings, const std::string& section,
                           std::int64_t samples) {
  const std::int64_t steps = settings.integer(section + ".steps");
  if (steps > 0) return steps;
  const std::int64_t batch = settings.integer(section + ".batch");
  return settings.integer(section + ".epochs") * ((samples + batch - 1) / batch);
}

nn::Schedule schedule_of(const Settings& settings, const std::string& section, std::int64_t steps) {
  const auto part = [&](double share) {
    return static_cast<std::int64_t>(std::llround(share * static_cast<double>(steps)));
  };
  nn::Schedule schedule;
  schedule.kind = nn::parse_schedule(settings.text(section + ".schedule"));
  schedule.base = settings.number(section + ".lr");
  schedule.final = settings.number(section + ".lr_final");
  schedule.total = steps;
  schedule.gamma = settings.number(section + ".gamma");
  schedule.warmup = std::min(part(settings.number(section + ".warmup")), steps - 1);
  for (const double share : settings.numbers(section + ".milestones"))
    schedule.milestones.push_back(part(share));
  schedule.check();
  return schedule;
}

curriculum::SamplerOptions sampler_options(const Settings& settings, const std::string& section,
                                           std::uint64_t key, std::int64_t steps) {
  curriculum::SamplerOptions options;
  options.batch_size = settings.integer(section + ".batch");
  options.seed = key;
  options.feeding = settings.text(section + ".order") == "shuffle"
                        ? curriculum::Feeding::kShuffled
                        : curriculum::Feeding::kSequential;
  if (section != "train") return options;
  options.window_batches = settings.integer("train.window_shuffle");
  options.pacing = curriculum::pacing_of(curriculum_options_of(settings), steps);
  if (options.pacing.paces()) options.feeding = curriculum::Feeding::kPaced;
  return options;
}

curriculum::RelianceOptions reliance_options(const Settings& settings) {
  return curriculum::reliance_of(
      options_of(settings, "distill.reliance", curriculum::reliance_options()));
}

distill::OptimizerFactory optimizer_factory(const Settings& settings, const std::string& section,
                                            bool bf16_copy) {
  return [&settings, section,
          bf16_copy](const nn::TrainedModules& modules) -> std::unique_ptr<nn::Optimizer> {
    const auto common = [&](auto config) {
      config.learning_rate = settings.number(section + ".lr");
      config.weight_decay = settings.number(section + ".weight_decay");
      config.decay_norm_and_bias = settings.flag(section + ".decay_norm_and_bias");
      config.clip_norm = settings.number(section + ".clip_norm");
      config.bf16_copy = bf16_copy;
      return config;
    };
    if (settings.text(section + ".optimizer") == "sgd") {
      auto config = common(nn::SgdConfig{});
      config.momentum = settings.number(section + ".momentum");
      config.nesterov = settings.flag(section + ".nesterov");
      return std::make_unique<nn::Sgd>(modules, config);
    }
    auto config = common(nn::AdamWConfig{});
    config.beta1 = settings.number(section + ".beta1");
    config.beta2 = settings.number(section + ".beta2");
    config.epsilon = settings.number(section + ".epsilon");
    return std::make_unique<nn::AdamW>(modules, config);
  };
}

distill::Terms terms_of(const Settings& settings, std::uint64_t key) {
  distill::SoftTargetsOptions soft;
  soft.divergence = distill::divergence_kinds().at(settings.text("distill.divergence")).divergence;
  soft.parameter = settings.number("distill.parameter");
  soft.logits_memory =
      static_cast<std::int64_t>(std::ceil(settings.number("distill.logits_memory") * (1 << 20)));
  soft.recompute = settings.flag("distill.recompute_logits");
  distill::Terms terms = distill::soft_targets(soft);
  for (const auto& kind : distill::term_kinds().rows()) {
    const std::string& name = kind->names.front();
    const nn::Options options = options_of(settings, "distill." + name, distill::options_of(*kind));
    if (options.number("weight") == 0) continue;
    nn::Options own;
    for (const nn::OptionSpec& spec : kind->options) own.set(spec.key, options.value(spec.key));
    const std::uint64_t seed = key ^ (std::uint64_t{path_hash(name.c_str())} << 32);
    terms.push_back({static_cast<float>(options.number("weight")), kind->make({own, seed})});
  }
  return terms;
}

}  // namespace retort::tools
