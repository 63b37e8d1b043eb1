#include "tools/kdtrain/plan_ranks.h"

#include <algorithm>
#include <bit>
#include <memory>
#include <utility>

#include "distill/metrics/measure.h"
#include "nn/optim/rank_exchange.h"
#include "tools/kdtrain/training_settings.h"

namespace retort::tools {
namespace {

constexpr auto kGradients = static_cast<std::size_t>(MemoryRole::kGradients);
constexpr auto kData = static_cast<std::size_t>(MemoryRole::kData);
constexpr auto kOptimizer = static_cast<std::size_t>(MemoryRole::kOptimizer);

// Samples of the rank that has most.
std::int64_t largest_share(std::int64_t batch, std::int64_t slices, int ranks) {
  std::int64_t most = 1;
  for (int r = 0; r < ranks; ++r) {
    const auto own = nn::RankExchange::slices_of(slices, ranks, r);
    most = std::max(most, nn::slice_of(batch, slices, own.end).first -
                              nn::slice_of(batch, slices, own.begin).first);
  }
  return most;
}

// Arrays in which a sum of so many nodes waits, as SliceSum has them.
std::size_t waiting_arrays(int nodes) {
  return static_cast<std::size_t>(std::bit_width(static_cast<unsigned>(nodes) + 1) - 1);
}

}  // namespace

DryRun share_of_ranks(DryRun run, int ranks) {
  if (ranks == 1) return run;
  const auto whole = std::move(run.make_plan);
  run.make_plan = [whole, ranks](std::shared_ptr<void>* keep) {
    struct Held {
      std::shared_ptr<void> other;
      Settings settings;
    };
    std::shared_ptr<void> other;
    TrainingPlan plan = whole(&other);
    const auto held = std::make_shared<Held>(Held{std::move(other), *plan.settings});
    const auto set = [&](const char* key, std::int64_t value) {
      held->settings.set(plan.section + key, value, "a rank's share");
    };
    const std::int64_t slices = slices_of(*plan.settings, plan.section);
    set(".batch", largest_share(plan.settings->integer(plan.section + ".batch"), slices, ranks));
    set(".slices", slices / ranks);
    if (plan.section == "train")
      if (const std::int64_t tokens = plan.settings->integer("train.batch_tokens"); tokens > 0)
        set(".batch_tokens", (tokens + ranks - 1) / ranks);
    plan.settings = &held->settings;
    *keep = held;
    return plan;
  };
  return run;
}

void count_in_ranks(const Settings& settings, const std::string& section,
                    const ExperimentData& data, Device device, int ranks, JobPlan* job) {
  if (ranks == 1) return;
  const std::int64_t slices = slices_of(settings, section);
  const nn::Dataset& samples = section == "teacher.train" ? *data.teacher : *data.student;
  job->steps_per_epoch = epoch_steps(settings, section, samples);
  JobPlan::OfRank& own = job->of_rank;
  own.rows = largest_share(settings.integer(section + ".batch"), slices, ranks);
  own.slices = slices / ranks;
  const auto n = static_cast<std::size_t>(ranks);
  const std::size_t array = job->model_bytes, of_others = array - array / n;
  own.sent_bytes = 2 * of_others;  // sums to those who own them, and what was updated to all
  own.inbox_bytes = of_others;
  // Nodes of all ranks wait in parts; with one slice a rank has a sum that one slice alone needs not.
  std::size_t more = own.inbox_bytes + waiting_arrays(ranks) * (array / n);
  if (own.slices == 1) more += array;
  // For a checkpoint rank 0 gathers the others' parts of the state, beside the copy that is written.
  const std::size_t gathered = job->steady_by_role[kOptimizer];
  job->steady += gathered;
  job->steady_by_role[kData] += gathered;
  for (auto [peak, roles] : {std::pair{&job->steady, &job->steady_by_role},
                             std::pair{&job->start, &job->start_by_role}}) {
    const std::size_t state = (*roles)[kOptimizer], gone = state - state / n;
    own.optimizer_bytes = std::max(own.optimizer_bytes, state / n);
    (*roles)[kOptimizer] -= gone;
    (*roles)[kGradients] += more;
    *peak += more;
    *peak -= std::min(*peak, gone);
  }
  for (StagePlan& stage : job->stages) stage.step_s -= stage.update_s - stage.update_s / ranks;
  std::int64_t passes = 0, shared = 0;
  for (const EvaluationSet& set : data.evaluation) {
    const std::int64_t each = distill::samples_of_a_pass(set.data->facts(), device),
                       all = (set.data->size() + each - 1) / each;
    passes += all;
    shared += (all + ranks - 1) / ranks;
  }
  if (passes > 0) job->evaluation_s *= static_cast<double>(shared) / static_cast<double>(passes);
}

}  // namespace retort::tools
