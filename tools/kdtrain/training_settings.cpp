#include "tools/kdtrain/training_settings.h"

#include <algorithm>
#include <cmath>

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
  const std::string& pacing = settings.text("curriculum.pacing");
  if (pacing == "none") return options;
  options.feeding = curriculum::Feeding::kPaced;
  options.pacing.kind = curriculum::parse_pacing_kind(pacing);
  options.pacing.start = settings.number("curriculum.start");
  options.pacing.increase = settings.number("curriculum.increase");
  const auto& lengths = settings.integers("curriculum.pacing_steps");
  options.pacing.step_lengths.assign(lengths.begin(), lengths.end() - 1);
  options.pacing.step_length = lengths.back();
  options.pacing.full_at = settings.number("curriculum.full_at");
  options.pacing.total_steps = steps;
  return options;
}

curriculum::RelianceOptions reliance_options(const Settings& settings) {
  curriculum::RelianceOptions options;
  options.mode = curriculum::parse_reliance_mode(settings.text("distill.reliance.mode"));
  options.offset = curriculum::parse_reliance_offset(settings.text("distill.reliance.s"));
  options.clamp = settings.flag("distill.reliance.clamp");
  options.per_sample = settings.text("distill.reliance.per") == "sample";
  return options;
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

distill::Divergence divergence_of(const Settings& settings) {
  const std::string& name = settings.text("distill.divergence");
  for (int i = 0; i < kernels::kDivergences; ++i)
    if (name == kernels::name_of(static_cast<distill::Divergence>(i)))
      return static_cast<distill::Divergence>(i);
  fail(ErrorCode::kUsage, "[recipe] no divergence is called ", name);
}

DType precision_of(const Settings& settings, const std::string& key) {
  return settings.text(key) == "bf16" ? DType::kBF16 : DType::kF32;
}

}  // namespace retort::tools
