#include "tools/kdtrain/paths.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>
#include <set>

#include "engine/io/file.h"
#include "nn/models/registry.h"

namespace retort::tools {
namespace {

// The chain that ends with what learns from `teachers`.
std::vector<std::string> chain_to(const Recipe& recipe, const std::string& name,
                                  const Teachers& teachers) {
  std::vector<std::string> names{name};
  for (std::string from = teachers.front();;) {
    names.push_back(from);
    const auto model = std::find_if(recipe.models.begin(), recipe.models.end(),
                                    [&](const ModelSpec& m) { return m.name == from; });
    if (model == recipe.models.end() || !uses_teacher(model->settings)) break;
    from = model->teachers.front();
  }
  std::reverse(names.begin(), names.end());
  return names;
}

// Architectures with the options in which nets of one architecture differ.
class Nets {
 public:
  explicit Nets(const Recipe& recipe) {
    for (const ModelSpec& model : recipe.models) add(model.settings);
    for (const Arm& arm : recipe.arms) add(arm.settings);
  }
  std::string name(const Settings& settings) const {
    const std::string& arch = settings.text("student.arch");
    std::string text = arch;
    for (const nn::OptionSpec& spec : nn::model_kinds().at(arch).options)
      if (values_.at({arch, spec.key}).size() > 1)
        text += " " + spec.key + " = " + to_toml(settings.value("student." + spec.key));
    return text;
  }

 private:
  void add(const Settings& settings) {
    const std::string& arch = settings.text("student.arch");
    for (const nn::OptionSpec& spec : nn::model_kinds().at(arch).options)
      values_[{arch, spec.key}].insert(to_toml(settings.value("student." + spec.key)));
  }
  std::map<std::pair<std::string, std::string>, std::set<std::string>> values_;
};

std::optional<double> mean_of(const Json& results, const std::string& name,
                              const std::string& metric) {
  for (const Json& arm : results.at("arms").items()) {
    if (arm.at("name").as_string() != name) continue;
    const Json* const summary = arm.at("metrics").find(metric);
    if (summary != nullptr) return summary->at("mean").as_number();
  }
  return std::nullopt;
}

}  // namespace

std::vector<AssistantPath> best_paths(const Recipe& recipe, const Json& results,
                                      const std::string& metric) {
  std::vector<AssistantPath> best;
  const Nets nets(recipe);
  const auto add = [&](const std::string& name, const Settings& settings,
                       const Teachers& teachers) {
    const auto value = mean_of(results, name, metric);
    if (!value || !uses_teacher(settings)) return;
    AssistantPath path{nets.name(settings), chain_to(recipe, name, teachers), *value};
    const auto same = std::find_if(best.begin(), best.end(), [&](const AssistantPath& other) {
      return other.net == path.net && other.assistants() == path.assistants();
    });
    if (same == best.end())
      best.push_back(std::move(path));
    else if (path.value > same->value)
      *same = std::move(path);
  };
  for (const ModelSpec& model : recipe.models) add(model.name, model.settings, model.teachers);
  for (const Arm& arm : recipe.arms) add(arm.name, arm.settings, arm.teachers);
  std::vector<std::string> names;
  for (const AssistantPath& path : best)
    if (std::find(names.begin(), names.end(), path.net) == names.end()) names.push_back(path.net);
  const auto place = [&](const AssistantPath& path) {
    return std::pair(std::find(names.begin(), names.end(), path.net), path.assistants());
  };
  std::stable_sort(best.begin(), best.end(), [&](const AssistantPath& a, const AssistantPath& b) {
    return place(a) < place(b);
  });
  return best;
}

std::string paths_table(const Recipe& recipe, const std::filesystem::path& run_folder) {
  if (recipe.models.empty()) return "";
  constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 28;
  const std::string file = (run_folder / "results.json").string();
  const Json results = Json::parse(read_file(file, kMostBytes), file);
  std::string metric = "validation.accuracy";
  std::vector<AssistantPath> paths = best_paths(recipe, results, metric);
  if (paths.empty()) paths = best_paths(recipe, results, metric = "test.accuracy");
  if (paths.empty()) return "";
  std::size_t width = 10;
  for (const AssistantPath& path : paths) width = std::max(width, path.net.size());
  std::string text = "best path by net and number of assistants (" + metric + ")\n";
  for (const AssistantPath& path : paths) {
    char head[64];
    std::snprintf(head, sizeof head, "%zu  %7.2f %%  ", path.assistants(), 100 * path.value);
    text += "  " + path.net + std::string(width - path.net.size() + 1, ' ') + head;
    for (const std::string& name : path.names)
      text += (&name == &path.names.front() ? "" : " -> ") + name;
    text += "\n";
  }
  return text;
}

}  // namespace retort::tools
