// `kdtrain plan`: what a recipe will take, as a table or as JSON.
#include <algorithm>
#include <cstdio>

#include "engine/io/json.h"
#include "kernels/common/parallel.h"
#include "tools/kdtrain/command_line.h"
#include "tools/kdtrain/plan.h"
#include "tools/kdtrain/rank_recipe.h"
#include "tools/kdtrain/ranks.h"
#include "tools/kdtrain/step_costs.h"

namespace retort::tools {
namespace {

std::string rounded_time(double s) {
  char text[32];
  if (s >= 5400)
    std::snprintf(text, sizeof text, "%.1f h", s / 3600);
  else if (s >= 90)
    std::snprintf(text, sizeof text, "%.1f min", s / 60);
  else
    std::snprintf(text, sizeof text, "%.2g s", s);
  return text;
}

std::string step_time(double s) {
  char text[32];
  if (s >= 1)
    std::snprintf(text, sizeof text, "%.2f s", s);
  else if (s >= 1e-3)
    std::snprintf(text, sizeof text, "%.2f ms", 1e3 * s);
  else
    std::snprintf(text, sizeof text, "%.1f us", 1e6 * s);
  return text;
}

constexpr int kWide = 20;

void print_roles(const char* name, std::size_t peak, const RoleBytes& by_role) {
  std::printf("  %-*s %9.1f", kWide, name, mebibytes(peak));
  for (const std::size_t bytes : by_role) std::printf(" %11.1f", mebibytes(bytes));
  std::printf("\n");
}

void print_ranks(const RunPlan& plan) {
  std::printf("\nEach of %d ranks\n  %-*s %9s %9s %16s %13s %16s\n", plan.ranks, kWide, "one job",
              "samples", "slices", "sent a step", "inbox", "optimizer state");
  for (const JobPlan& job : plan.jobs)
    std::printf("  %-*s %9lld %9lld %12.3f MiB %9.3f MiB %12.3f MiB\n", kWide, job.arm.c_str(),
                static_cast<long long>(job.of_rank.rows),
                static_cast<long long>(job.of_rank.slices), mebibytes(job.of_rank.sent_bytes),
                mebibytes(job.of_rank.inbox_bytes), mebibytes(job.of_rank.optimizer_bytes));
  std::printf(
      "Measured here: the steps of a rank's share of each batch, alone, and their memory.\n"
      "Computed: this table, the part of the update, the share of evaluation. Not in the times:\n"
      "the exchange (`mpirun -np %d kdtrain doctor` measures one of 64 MiB) and what ranks on one\n"
      "machine take from each other.\n",
      plan.ranks);
}

void print(const Recipe& recipe, const RunPlan& plan, Device device) {
  std::printf("%s: %s on %s, %d thread%s\n\n", recipe.name.c_str(), plan.description.c_str(),
              name_of(device), thread_count(), thread_count() == 1 ? "" : "s");
  std::printf("Work\n  %-*s %5s %9s %8s %7s %10s %10s %13s\n", kWide, "job", "jobs", "steps",
              "epochs", "batch", "step", "each job", "checkpoint");
  for (const JobPlan& job : plan.jobs) {
    std::printf("  %-*s %5lld %9lld %8.4g %7lld %10s %10s %9.1f MiB\n", kWide, job.arm.c_str(),
                static_cast<long long>(job.count), static_cast<long long>(job.steps),
                static_cast<double>(job.steps) / static_cast<double>(job.steps_per_epoch),
                static_cast<long long>(job.batch), step_time(job.stages.back().step_s).c_str(),
                rounded_time(job.job_s).c_str(), mebibytes(job.checkpoint_bytes));
    if (job.stages.size() > 1)
      for (const StagePlan& stage : job.stages)
        std::printf("  %-*s %5s %9lld %8s %7s %10s\n", kWide, ("  " + stage.name).c_str(), "",
                    static_cast<long long>(stage.steps), "", "", step_time(stage.step_s).c_str());
  }
  std::printf("\nMemory of tensors in MiB\n  %-*s %9s", kWide, "one job", "peak");
  for (int i = 0; i < kMemoryRoles; ++i) std::printf(" %11s", name_of(static_cast<MemoryRole>(i)));
  std::printf("\n");
  for (const JobPlan& job : plan.jobs) {
    RoleBytes roles{};
    for (std::size_t r = 0; r < roles.size(); ++r)
      roles[r] = std::max(job.steady_by_role[r], job.start_by_role[r]);
    print_roles(job.arm.c_str(), std::max(job.steady, job.start), roles);
  }
  std::printf("  all together\n");
  for (const PhasePlan& phase : plan.phases) {
    std::string name = phase.name;
    if (phase.at_once > 1) name += " x " + std::to_string(phase.at_once);
    print_roles(name.c_str(), phase.peak, phase.by_role);
  }
  if (plan.ranks > 1) print_ranks(plan);
  std::printf("\nPeak memory  %.1f MiB%s", mebibytes(plan.peak),
              plan.ranks > 1 ? " of a rank" : "");
  if (plan.cache_bytes > 0)
    std::printf(", and beside it up to %.1f MiB of cached teacher logits",
                mebibytes(plan.cache_bytes));
  std::printf("\nRun folder   %.1f MiB of checkpoints and weights\n", mebibytes(plan.disk_bytes));
  std::printf("Time         %s%s\n", plan.may_stop_early ? "at most " : "",
              rounded_time(plan.seconds).c_str());
  std::printf(
      "Measured in %s by running a few steps of every different job; nothing was written.\n",
      rounded_time(plan.measured_s).c_str());
}

Json json_of(const RunPlan& plan) {
  const auto roles = [](const RoleBytes& bytes) {
    Json out = Json::object();
    for (std::size_t i = 0; i < bytes.size(); ++i)
      out.set(name_of(static_cast<MemoryRole>(i)), mebibytes(bytes[i]));
    return out;
  };
  Json jobs = Json::array(), phases = Json::array();
  for (const JobPlan& job : plan.jobs) {
    Json stages = Json::array();
    for (const StagePlan& stage : job.stages) {
      Json one = Json::object();
      one.set("name", stage.name).set("steps", stage.steps);
      stages.push(one.set("step_s", stage.step_s).set("teacher_s", stage.teacher_s));
    }
    Json one = Json::object();
    one.set("arm", job.arm).set("jobs", job.count).set("steps", job.steps);
    one.set("steps_per_epoch", job.steps_per_epoch).set("batch", job.batch);
    one.set("stages", std::move(stages)).set("evaluations", job.evaluations);
    one.set("evaluation_s", job.evaluation_s).set("job_s", job.job_s);
    one.set("steady_mib", mebibytes(job.steady)).set("memory_mib", roles(job.steady_by_role));
    one.set("start_mib", mebibytes(job.start)).set("start_memory_mib", roles(job.start_by_role));
    one.set("checkpoint_mib", mebibytes(job.checkpoint_bytes));
    if (plan.ranks > 1) {
      Json own = Json::object();
      own.set("samples", job.of_rank.rows).set("slices", job.of_rank.slices);
      own.set("sent_mib", mebibytes(job.of_rank.sent_bytes));
      own.set("inbox_mib", mebibytes(job.of_rank.inbox_bytes));
      own.set("optimizer_mib", mebibytes(job.of_rank.optimizer_bytes));
      one.set("of_rank", std::move(own));
    }
    jobs.push(one.set("model_mib", mebibytes(job.model_bytes)));
  }
  for (const PhasePlan& phase : plan.phases) {
    Json one = Json::object();
    one.set("phase", phase.name).set("jobs_at_once", phase.at_once);
    one.set("peak_mib", mebibytes(phase.peak)).set("memory_mib", roles(phase.by_role));
    phases.push(one.set("seconds", phase.seconds));
  }
  Json out = Json::object();
  if (plan.ranks > 1) {
    Json measured = Json::array(), computed = Json::array(), missing = Json::array();
    for (const char* what : {"step_s", "evaluation_s", "memory_mib"}) measured.push(what);
    for (const char* what : {"of_rank", "seconds"}) computed.push(what);
    for (const char* what : {"exchange"}) missing.push(what);
    out.set("ranks", std::int64_t{plan.ranks}).set("measured", std::move(measured));
    out.set("computed", std::move(computed)).set("not_in_seconds", std::move(missing));
  }
  out.set("jobs", std::move(jobs)).set("phases", std::move(phases));
  out.set("peak_mib", mebibytes(plan.peak)).set("cache_mib", mebibytes(plan.cache_bytes));
  out.set("disk_mib", mebibytes(plan.disk_bytes)).set("seconds", plan.seconds);
  return out.set("may_stop_early", plan.may_stop_early).set("measured_s", plan.measured_s);
}

// As `run --ranks` would: its errors, its slices, a rank's threads on this machine.
void fit_ranks(const CommandLine& line, Device device, int ranks, Recipe* recipe) {
  check_rank_device(device, ranks);
  settle_slices(recipe, "", ranks);
  const std::vector<Recipe> recipes = recipes_in_tasks(*recipe);
  for (std::size_t task = 0; task < recipes.size(); ++task)
    check_ranks(JobList(recipes, task), ranks);
  if (!threads_are_given(line)) set_thread_count(std::max(1, thread_count() / ranks));
}

}  // namespace

int plan_command(const CommandLine& line) {
  auto recipe = checked_recipe(line);
  if (!recipe) return static_cast<int>(ErrorCode::kUsage);
  const Device device = open_device(line.device, recipe->base);
  const int ranks = std::max(line.ranks, 1);
  if (ranks > 1) fit_ranks(line, device, ranks, &*recipe);
  const RunPlan plan = make_plan(*recipe, device, ranks);
  if (line.json)
    std::printf("%s\n", json_of(plan).dump().c_str());
  else
    print(*recipe, plan, device);
  return 0;
}

}  // namespace retort::tools
