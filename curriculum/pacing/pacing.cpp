#include "curriculum/pacing/pacing.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/check.h"

namespace retort::curriculum {
namespace {

// min(1, s0 inc^k) without overflow for large k.
double grown(const nn::Options& o, std::int64_t k) {
  return std::min(1.0, o.number("start") * std::pow(o.number("increase"), static_cast<double>(k)));
}

Mistake one_length(const std::string& name, const nn::Options& o) {
  const std::size_t lengths = o.integers("pacing_steps").size();
  if (lengths == 1) return {};
  return {"pacing_steps",
          join(lengths == 0 ? "expected at least one length" : "expected one length",
               " for pacing = \"", name, "\", got ", lengths)};
}

Mistake grows(const std::string& name, const nn::Options& o) {
  if (o.number("increase") > 1) return {};
  return {"increase", "expected more than 1 for pacing = \"" + name + "\""};
}

PacingKind fixed_exponential() {
  PacingKind kind;
  kind.names = {"fixed_exponential"};
  kind.options = {start_option(), increase_option(), pacing_steps_option()};
  kind.doc = "min(1, s0 inc^floor(i / step))";
  kind.fraction = [](const nn::Options& o, std::int64_t step, std::int64_t) {
    return grown(o, step / o.integers("pacing_steps").front());
  };
  kind.check = [name = kind.names.front()](const nn::Options& o) {
    const Mistake mistake = one_length(name, o);
    return mistake.message.empty() ? grows(name, o) : mistake;
  };
  return kind;
}

PacingKind varied_exponential() {
  PacingKind kind;
  kind.names = {"varied_exponential"};
  kind.options = {start_option(), increase_option(), pacing_steps_option()};
  kind.doc = "min(1, s0 inc^#{j : step_1 + .. + step_j < i}), the last step length for ever";
  kind.fraction = [](const nn::Options& o, std::int64_t step, std::int64_t) {
    const nn::Ints& lengths = o.integers("pacing_steps");
    std::int64_t sum = 0, passed = 0;
    for (std::size_t j = 0; j + 1 < lengths.size(); ++j, ++passed) {
      sum += lengths[j];
      if (sum >= step) return grown(o, passed);
    }
    // Then every lengths.back() steps: count the k >= 1 with sum + k lengths.back() < step.
    if (step > sum) passed += (step - sum - 1) / lengths.back();
    return grown(o, passed);
  };
  kind.check = [name = kind.names.front()](const nn::Options& o) {
    return o.integers("pacing_steps").empty() ? one_length(name, o) : grows(name, o);
  };
  return kind;
}

PacingKind single_step() {
  PacingKind kind;
  kind.names = {"single_step"};
  kind.options = {start_option(), pacing_steps_option()};
  kind.doc = "s0 if i <= step else 1";
  kind.fraction = [](const nn::Options& o, std::int64_t step, std::int64_t) {
    return step <= o.integers("pacing_steps").front() ? o.number("start") : 1;
  };
  kind.check = [name = kind.names.front()](const nn::Options& o) { return one_length(name, o); };
  return kind;
}

// Wu et al.: b + (1 - b) share(t), clipped to [b, 1], with t = i / (a T).
PacingKind by_share(std::vector<std::string> names, double (*share)(double t), std::string doc) {
  PacingKind kind;
  kind.names = std::move(names);
  kind.options = {start_option(), full_at_option()};
  kind.doc = std::move(doc);
  kind.of_run = true;
  kind.fraction = [share](const nn::Options& o, std::int64_t step, std::int64_t total_steps) {
    const double b = o.number("start");
    const double t =
        static_cast<double>(step) / (o.number("full_at") * static_cast<double>(total_steps));
    return std::clamp(b + (1 - b) * share(t), b, 1.0);
  };
  return kind;
}

PacingKind competence() {
  PacingKind kind;
  kind.names = {"competence"};
  kind.options = {start_option()};
  kind.doc = "min(1, sqrt(i (1 - c0^2) / T + c0^2))";
  kind.of_run = true;
  kind.fraction = [](const nn::Options& o, std::int64_t step, std::int64_t total_steps) {
    const double c0 = o.number("start");
    return std::min(1.0, std::sqrt(static_cast<double>(step) * (1 - c0 * c0) /
                                       static_cast<double>(total_steps) +
                                   c0 * c0));
  };
  return kind;
}

std::vector<PacingKind> built_in() {
  return {
      {.names = {"none", "full"}, .doc = "1"},
      fixed_exponential(),
      varied_exponential(),
      single_step(),
      by_share(
          {"linear"}, [](double t) { return t; }, "b + (1 - b) t"),
      by_share(
          {"quadratic", "quad"}, [](double t) { return t * t; }, "b + (1 - b) t^2"),
      by_share(
          {"root"}, [](double t) { return std::sqrt(t); }, "b + (1 - b) t^(1/2)"),
      by_share(
          {"exp"}, [](double t) { return t >= 1 ? 1 : std::expm1(10 * t) / std::expm1(10.0); },
          "b + (1 - b) (e^(10 t) - 1) / (e^10 - 1)"),
      by_share(
          {"log"}, [](double t) { return 1 + 0.1 * std::log(t + std::exp(-10.0)); },
          "b + (1 - b) (1 + 0.1 ln(t + e^-10))"),
      by_share(
          {"step"}, [](double t) { return t >= 1 ? 1.0 : 0.0; }, "b + floor(t)"),
      competence(),
  };
}

}  // namespace

nn::Registry<PacingKind>& pacing_kinds() {
  static nn::Registry<PacingKind> kinds("pacing", built_in());
  return kinds;
}

nn::OptionSpec start_option() {
  return nn::number_option("start", 0.2, 1e-6, 1, "fraction",
                           "Share of the data at the start of pacing.");
}

nn::OptionSpec increase_option() {
  return nn::number_option("increase", 1.9, 1, 1e6, "factor",
                           "Growth at each step of exponential pacing.");
}

nn::OptionSpec pacing_steps_option() {
  return nn::ints_option("pacing_steps", {100}, 1, 1e9, "steps",
                         "Steps between increases (varied_exponential: a list).");
}

nn::OptionSpec full_at_option() {
  return nn::number_option("full_at", 0.5, 1e-6, 1, "fraction of the run",
                           "When the other pacing functions reach all data.");
}

std::vector<nn::OptionSpec> pacing_options() {
  std::vector<nn::OptionSpec> all;
  for (const auto& kind : pacing_kinds().rows())
    for (const nn::OptionSpec& spec : kind->options) {
      const auto same_key = [&](const nn::OptionSpec& other) { return other.key == spec.key; };
      const auto known = std::find_if(all.begin(), all.end(), same_key);
      if (known == all.end()) {
        all.push_back(spec);
        continue;
      }
      RETORT_CHECK(known->type == spec.type && known->fallback == spec.fallback &&
                       known->choices == spec.choices && known->least == spec.least &&
                       known->most == spec.most,
                   "[pacing ", kind->names.front(), "] reads '", spec.key,
                   "' with another type, fallback or range than the pacing functions before it");
    }
  return all;
}

Pacing::Pacing(const std::string& name, const nn::Options& options, std::int64_t total_steps)
    : kind_(&pacing_kinds().at(name)),
      options_(nn::complete("pacing " + name, kind_->options, options)),
      total_steps_(total_steps) {
  RETORT_CHECK(!kind_->of_run || total_steps >= 1, "[pacing ", name,
               "] expected the number of steps of the run, got ", total_steps);
  if (!kind_->check) return;
  const Mistake mistake = kind_->check(options_);
  RETORT_CHECK(mistake.message.empty(), "[pacing ", name, "] ", mistake.key, ": ", mistake.message);
}

double Pacing::fraction(std::int64_t step) const {
  RETORT_CHECK(step >= 0, "[pacing] expected a step >= 0, got ", step);
  if (!paces()) return 1;
  const double g = kind_->fraction(options_, step, total_steps_);
  RETORT_CHECK_AS(kNumerics, g > 0 && g <= 1, "[pacing ", kind_->names.front(),
                  "] expected a share of the data in (0, 1], got ", g, " at step ", step);
  return g;
}

std::int64_t Pacing::prefix_size(std::int64_t step, std::int64_t n, std::int64_t at_least) const {
  // The margin keeps a product such as 0.07 * 100 = 7.000000000000001 at 7.
  const double exact = fraction(step) * static_cast<double>(n);
  const auto size = static_cast<std::int64_t>(std::ceil(exact - 1e-9 * static_cast<double>(n)));
  return std::min(n, std::max(size, at_least));
}

}  // namespace retort::curriculum
