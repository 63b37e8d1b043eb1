// `kdtrain compare RUN RUN ...`: what differs between runs, arm by arm.
#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "engine/io/file.h"
#include "engine/io/json.h"
#include "tools/kdtrain/command_line.h"
#include "tools/kdtrain/recipe_identity.h"
#include "tools/kdtrain/run_folder.h"
#include "tools/report/results.h"

namespace retort::tools {
namespace {

namespace fs = std::filesystem;

struct ComparedRun {
  std::string folder;
  RunResults results;
  std::optional<Recipe> recipe;  // none: of another version
};

ComparedRun read_run(const std::string& folder) {
  ComparedRun run;
  run.folder = folder;
  const std::string log = folder + "/metrics.jsonl", recipe = folder + "/recipe.resolved.toml";
  RETORT_CHECK_AS(kIo, fs::is_regular_file(log), "[compare] ", escaped(folder, 4096),
                  " is no run folder: it holds no metrics.jsonl");
  if (fs::is_regular_file(recipe)) {
    RecipeResult result = parse_recipe(recipe, read_file(recipe, kMaxRecipeBytes), {});
    if (result.problems.empty()) run.recipe = std::move(result.recipe);
  }
  run.results =
      gather_results(read_run_log(log), run.recipe ? report_text(*run.recipe) : ReportText());
  return run;
}

const ArmResult* arm_of(const RunResults& results, const std::string& name) {
  for (const auto* arms : {&results.teachers, &results.arms})
    for (const ArmResult& arm : *arms)
      if (arm.name == name) return &arm;
  return nullptr;
}

// Of the seeds that both have; the later run minus the first.
Summary difference(const ArmResult& first, const ArmResult& later, const std::string& metric) {
  std::vector<double> all;
  const auto a = first.metrics.find(metric), b = later.metrics.find(metric);
  if (a != first.metrics.end() && b != later.metrics.end())
    for (std::size_t i = 0; i < first.seeds.size(); ++i)
      for (std::size_t j = 0; j < later.seeds.size(); ++j)
        if (first.seeds[i] == later.seeds[j]) all.push_back(b->second[j] - a->second[i]);
  std::erase_if(all, [](double d) { return d != d; });
  return summarize(all);
}

std::vector<std::string> names_of(const std::vector<ComparedRun>& runs) {
  std::vector<std::string> names;
  for (const ComparedRun& run : runs)
    for (const auto* arms : {&run.results.teachers, &run.results.arms})
      for (const ArmResult& arm : *arms)
        if (std::find(names.begin(), names.end(), arm.name) == names.end())
          names.push_back(arm.name);
  return names;
}

std::vector<MetricText> metrics_of(const std::vector<ComparedRun>& runs) {
  std::vector<MetricText> metrics;
  for (const ComparedRun& run : runs)
    for (const MetricText& metric : run.results.metrics)
      if (metric.kind.compares &&
          std::none_of(metrics.begin(), metrics.end(),
                       [&](const MetricText& other) { return other.name == metric.name; }))
        metrics.push_back(metric);
  return metrics;
}

void print_changes(const ComparedRun& first, const ComparedRun& later) {
  if (!first.recipe || !later.recipe) {
    std::printf("recipes: not compared, one of them is of another version\n");
    return;
  }
  const RecipeChanges changes = changes_since(*later.recipe, resolved_toml(*first.recipe),
                                              [](const std::string&) { return ""; }, {});
  for (const auto* list : {&changes.refused, &changes.told})
    for (const std::string& change : *list) std::printf("  %s\n", change.c_str());
  if (changes.refused.empty() && changes.told.empty()) std::printf("  no key differs\n");
}

void print_metric(const MetricText& metric, const std::vector<ComparedRun>& runs,
                  const std::vector<std::string>& arms) {
  std::printf("\n%s\n", metric.title().c_str());
  for (const std::string& name : arms) {
    const ArmResult* const first = arm_of(runs.front().results, name);
    for (std::size_t r = 0; r < runs.size(); ++r) {
      const ArmResult* const arm = arm_of(runs[r].results, name);
      if (arm == nullptr || arm->summary(metric.name).n == 0) continue;
      const std::string value =
          number_with_interval(metric, arm->summary(metric.name), arm->interval(metric));
      std::printf("  %-28s %-28s %-24s n=%lld", r == 0 || first == nullptr ? name.c_str() : "",
                  runs[r].folder.c_str(), value.c_str(),
                  static_cast<long long>(arm->summary(metric.name).n));
      if (r > 0 && first != nullptr)
        if (const Summary d = difference(*first, *arm, metric.name); d.n > 0) {
          std::printf("  %s", metric.difference(d.mean).c_str());
          if (d.n > 1)
            std::printf(" on %lld common seeds, p = %.2g", static_cast<long long>(d.n), t_test(d));
        }
      std::printf("\n");
    }
  }
}

Json json_of(const std::vector<ComparedRun>& runs) {
  Json all = Json::array();
  for (const std::string& name : names_of(runs))
    for (const MetricText& metric : metrics_of(runs)) {
      Json one = Json::object(), values = Json::array();
      one.set("arm", name).set("metric", metric.name);
      const ArmResult* const first = arm_of(runs.front().results, name);
      for (const ComparedRun& run : runs) {
        Json value = Json::object();
        value.set("run", run.folder);
        if (const ArmResult* const arm = arm_of(run.results, name)) {
          const Summary s = arm->summary(metric.name);
          value.set("n", s.n);
          if (s.n > 0) value.set("mean", s.mean);
          if (first != nullptr && arm != first)
            if (const Summary d = difference(*first, *arm, metric.name); d.n > 0) {
              value.set("difference", d.mean).set("common_seeds", d.n);
              if (d.n > 1) value.set("p", t_test(d));
            }
        }
        values.push(std::move(value));
      }
      all.push(one.set("runs", std::move(values)));
    }
  return all;
}

}  // namespace

int compare_command(const CommandLine& line) {
  RETORT_CHECK(line.words.size() >= 2, "[compare] expected two run folders or more");
  std::vector<ComparedRun> runs;
  for (const std::string& folder : line.words) runs.push_back(read_run(folder));
  if (line.json) {
    std::printf("%s\n", json_of(runs).dump().c_str());
    return 0;
  }
  for (std::size_t r = 1; r < runs.size(); ++r) {
    std::printf("%s, from %s:\n", runs[r].folder.c_str(), runs[0].folder.c_str());
    print_changes(runs[0], runs[r]);
  }
  const std::vector<std::string> arms = names_of(runs);
  for (const MetricText& metric : metrics_of(runs)) print_metric(metric, runs, arms);
  return 0;
}

}  // namespace retort::tools
