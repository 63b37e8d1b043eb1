#include "tools/kdtrain/training_settings.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "distill/terms/cosine.h"
#include "distill/terms/registry.h"
#include "kernels/common/philox.h"
#include "tools/kdtrain/curricula.h"

namespace retort::tools {

namespace {

constexpr std::int64_t kFewSamples = 16;  // of a slice that batch norm sees

// Sanh et al. 2019: 2 CE + 5 tau^2 KL + 1 cosine.
constexpr float kTripleCe = 2, kTripleKl = 5, kTripleCosine = 1;

std::vector<std::int64_t> token_counts(const nn::Dataset& data) {
  const std::vector<float> counts = data.measured("token_count");
  return {counts.begin(), counts.end()};
}

bool is_triple(const Settings& settings) {
  return settings.text("distill.loss") == "distilbert_triple";
}

}  // namespace

double lambda_of(const Settings& settings) {
  if (!is_triple(settings)) return settings.number("distill.lambda");
  return static_cast<double>(kTripleKl) / static_cast<double>(kTripleCe + kTripleKl);
}

std::int64_t epoch_steps(const Settings& settings, const std::string& section,
                         const nn::Dataset& data) {
  const std::int64_t budget = settings.integer(section + ".batch_tokens");
  if (budget > 0) {
    const std::vector<std::int64_t> sizes = token_counts(data);
    const std::int64_t all = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
    return std::max<std::int64_t>(1, curriculum::token_batches(all, budget));
  }
  const std::int64_t batch = settings.integer(section + ".batch");
  return (data.facts().epoch_size + batch - 1) / batch;
}

std::int64_t planned_steps(const Settings& settings, const std::string& section,
                           const nn::Dataset& data) {
  const std::int64_t steps = settings.integer(section + ".steps");
  if (steps > 0) return steps;
  return settings.integer(section + ".epochs") * epoch_steps(settings, section, data);
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
                                           std::uint64_t key, std::int64_t steps,
                                           const nn::Dataset& data) {
  curriculum::SamplerOptions options;
  options.batch_size = settings.integer(section + ".batch");
  options.batch_tokens = settings.integer(section + ".batch_tokens");
  if (options.batch_tokens > 0) {
    options.sizes = token_counts(data);
    options.batch_size = 1;  // which is not read
  }
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

std::int64_t slices_of(const Settings& settings, const std::string& section) {
  return std::max<std::int64_t>(1, settings.integer(section + ".slices"));
}

distill::OptimizerFactory optimizer_factory(const Settings& settings, const std::string& section,
                                            bool bf16_copy, Communicator* ranks) {
  return [&settings, section, bf16_copy,
          ranks](const nn::TrainedModules& modules) -> std::unique_ptr<nn::Optimizer> {
    const auto common = [&](auto config) {
      config.learning_rate = settings.number(section + ".lr");
      config.weight_decay = settings.number(section + ".weight_decay");
      config.decay_norm_and_bias = settings.flag(section + ".decay_norm_and_bias");
      config.clip_norm = settings.number(section + ".clip_norm");
      config.bf16_copy = bf16_copy;
      config.slices = slices_of(settings, section);
      config.ranks = ranks;
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

std::string told_of_slices(const Settings& settings, const std::string& section,
                           const nn::Module& model) {
  const std::int64_t slices = settings.integer(section + ".slices"),
                     batch = settings.integer(section + ".batch");
  if (slices <= 1 || settings.integer(section + ".batch_tokens") > 0) return "";
  const nn::Module::Named buffers = model.named_buffers();
  const std::int64_t smallest = std::max<std::int64_t>(1, batch / slices);
  if (smallest >= kFewSamples || std::none_of(buffers.begin(), buffers.end(), [](const auto& b) {
        return b.first.ends_with("running_var");
      }))
    return "";
  return join(section, ".slices = ", slices, " leaves ", smallest, " of ", batch,
              " samples to a slice: batch norm sees a slice at a time, and fewer than ",
              kFewSamples, " make its statistics rough");
}

distill::Terms terms_of(const Settings& settings, std::uint64_t key) {
  distill::SoftTargetsOptions soft;
  soft.divergence = distill::divergence_kinds().at(settings.text("distill.divergence")).divergence;
  soft.parameter = settings.number("distill.parameter");
  soft.tau_power = static_cast<std::int32_t>(settings.integer("distill.tau_power"));
  soft.logits_memory =
      static_cast<std::int64_t>(std::ceil(settings.number("distill.logits_memory") * (1 << 20)));
  soft.recompute = settings.flag("distill.recompute_logits");
  distill::Terms terms = distill::soft_targets(soft);
  if (is_triple(settings)) {
    terms[0].weight = kTripleCe + kTripleKl;
    const distill::CosineOptions cosine{key ^ (std::uint64_t{path_hash("triple")} << 32),
                                        distill::CosineOver::kPositions};
    terms.push_back({kTripleCosine, std::make_shared<distill::Cosine>(cosine)});
  }
  for (const auto& kind : distill::term_kinds().rows()) {
    const std::string& name = kind->names.front();
    const nn::Options options = options_of(settings, "distill." + name, distill::options_of(*kind));
    if (options.number("weight") == 0) continue;
    nn::Options own;
    for (const nn::OptionSpec& spec : kind->options) own.set(spec.key, options.value(spec.key));
    const std::uint64_t seed = key ^ (std::uint64_t{path_hash(name.c_str())} << 32);
    std::shared_ptr<distill::Term> term = kind->make({own, seed});
    RETORT_CHECK(term != nullptr, "[terms] the row of '", name, "' made no term");
    terms.push_back({static_cast<float>(options.number("weight")), std::move(term)});
  }
  return terms;
}

}  // namespace retort::tools
