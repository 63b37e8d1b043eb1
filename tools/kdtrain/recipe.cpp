// Settings, messages, recipe.resolved.toml, and where recipes are found.
#include "tools/kdtrain/recipe.h"

#include <algorithm>
#include <filesystem>

#include "engine/io/file.h"
#include "tools/kdtrain/error_codes.h"
#include "tools/kdtrain/recipe_parts.h"

namespace retort::tools {

Settings::Settings() {
  static const auto defaults = [] {
    std::map<std::string, Setting, std::less<>> all;
    for (const KeySpec& spec : schema())
      all.emplace(spec.key, Setting{spec.fallback, "default", false});
    return all;
  }();
  settings_ = defaults;
}

const Settings::Setting& Settings::at(std::string_view key) const {
  const auto at = settings_.find(key);
  if (at == settings_.end()) throw std::logic_error("no such setting: " + std::string(key));
  if (at->second.refused) throw RefusedValue{};
  return at->second;
}

void Settings::set(std::string_view key, Value value, std::string origin) {
  const auto at = settings_.find(key);
  if (at == settings_.end()) throw std::logic_error("no such setting: " + std::string(key));
  at->second = {std::move(value), std::move(origin), false};
}

void Settings::refuse(std::string_view key) {
  if (const auto at = settings_.find(key); at != settings_.end()) at->second.refused = true;
}

nn::Options options_of(const Settings& settings, std::string_view section,
                       std::span<const nn::OptionSpec> specs) {
  nn::Options options;
  for (const nn::OptionSpec& spec : specs)
    options.set(spec.key, settings.value(std::string(section) + "." + spec.key));
  return options;
}

Settings in_task(const Settings& settings, const TaskSpec& task, std::span<const Assignment> own) {
  Settings merged = settings;
  const auto set = [&](const Assignment& a) {
    merged.set(a.key, a.value, a.origin);
    if (a.refused) merged.refuse(a.key);
  };
  for (const Assignment& a : task.own) set(a);
  for (const Assignment& a : own)
    if (a.task == task.name) set(a);
  return merged;
}

RecipeResult parse_recipe(const std::string& source, std::string_view text,
                          const std::vector<std::string>& overrides) {
  RecipeResult result;
  result.recipe.source = source;
  bool readable = true;
  merge_recipe(read_recipe(source, text, overrides, &result.problems, &readable), &result);
  if (readable) check_together(&result);
  check_libraries(&result);
  std::stable_sort(result.problems.begin(), result.problems.end(),
                   [&](const auto& a, const auto& b) {
                     return std::tuple(a.file != source, a.place.line, a.place.column) <
                            std::tuple(b.file != source, b.place.line, b.place.column);
                   });
  return result;
}

std::string format_problems(const RecipeResult& result, std::string_view text) {
  const std::vector<std::string> lines = split(text, '\n');
  std::string out;
  std::size_t printed = 0;
  for (const RecipeProblem& p : result.problems) {
    if (++printed > 50) break;
    out += p.file;
    if (p.place.line > 0)
      out += ":" + std::to_string(p.place.line) + ":" + std::to_string(p.place.column);
    out += ": " + error_label(ErrorCode::kUsage, p.message) + p.message + "\n";
    const std::size_t line = static_cast<std::size_t>(p.place.line);
    const bool excerpt = line > 0 && line <= lines.size() && lines[line - 1].size() <= 200;
    if (excerpt) {
      const std::string number = std::to_string(line);
      const std::size_t column = static_cast<std::size_t>(std::max(1, p.place.column));
      out += std::string(number.size() < 5 ? 5 - number.size() : 0, ' ') + number + " | " +
             shown(lines[line - 1]) + "\n      | " +
             std::string(std::min<std::size_t>(column - 1, 80), ' ') + "^";
      if (!p.hint.empty()) out += " " + p.hint;
      out += "\n";
    } else if (!p.hint.empty()) {
      out += "      " + p.hint + "\n";
    }
  }
  const std::size_t count = result.problems.size();
  return out + std::to_string(count) + (count == 1 ? " error" : " errors") +
         "; nothing was started\n";
}

namespace {

std::string line_of(const std::string& key, const Value& value, const std::string& origin) {
  std::string text = key + " = " + to_toml(value);
  return text + (text.size() < 40 ? std::string(40 - text.size(), ' ') : "") + " # " +
         shown(origin) + "\n";
}

// The value as the resolved recipe has it: what was chosen is applied already.
Value resolved_value(const Recipe& recipe, const std::string& key) {
  if (key == "name") return recipe.name;
  if (key == "size") return std::string("default");
  if (key == "arms") return nn::Strings{};
  if (key == "report.baseline") {  // an arm that was not selected is no longer there
    const std::string& arm = recipe.base.text(key);
    const bool there = std::any_of(recipe.arms.begin(), recipe.arms.end(),
                                   [&](const Arm& a) { return a.name == arm; });
    return there ? arm : std::string();
  }
  return recipe.base.value(key);
}

template <class ArmOrModel>
std::string own_lines(const ArmOrModel& of) {
  std::string out;
  for (const std::string& key : of.owned)
    out += line_of(key, of.settings.value(key), of.settings.origin(key));
  for (const Assignment& own : of.in_tasks)
    out += line_of("task." + to_toml(own.task) + "." + own.key, own.value, own.origin);
  return out;
}

std::string header_of(const char* table, const std::string& name) {
  return "\n[[" + std::string(table) + "]]\nname = " + to_toml(name) + "\n";
}

std::string teachers_line(const Teachers& teachers) {
  return teachers == Teachers{"teacher"} ? "" : "teachers = " + to_toml(teachers) + "\n";
}

}  // namespace

std::string resolved_toml(const Recipe& recipe) {
  std::string out =
      "# Every value of this run, with where it came from. A complete recipe itself.\n";
  std::string table;
  // Keys of the top come first; a deeper table opens its own header.
  for (const KeySpec& spec : schema()) {
    const auto dot = spec.key.rfind('.');
    const std::string here = dot == std::string::npos ? "" : spec.key.substr(0, dot);
    if (here != table) out += "\n[" + (table = here) + "]\n";
    // Note [Keys that a resolved recipe leaves out]
    if (recipe.base.is_default(spec.key) && spec.neutral.value_or(spec.fallback) != spec.fallback &&
        !is_read_by_data(recipe, spec))
      continue;
    std::string origin = recipe.base.origin(spec.key);
    if (spec.key == "size" && origin != "default")
      origin += ": was " + to_toml(recipe.base.value("size")) + ", applied below";
    out += line_of(spec.key.substr(dot == std::string::npos ? 0 : dot + 1),
                   resolved_value(recipe, spec.key), origin);
  }
  for (const ModelSpec& model : recipe.models)
    out += header_of("model", model.name) + teachers_line(model.teachers) + own_lines(model);
  for (const TaskSpec& task : recipe.tasks) {
    out += header_of("task", task.name);
    for (const Assignment& own : task.own) out += line_of(own.key, own.value, own.origin);
  }
  for (const Arm& arm : recipe.arms)
    out += header_of("arm", arm.name) + "label = " + to_toml(arm.label) + "\n" +
           teachers_line(arm.teachers) + own_lines(arm);
  return out;
}

RecipeText find_recipe(const std::string& name_or_file) {
  std::error_code absent;
  if (std::filesystem::exists(name_or_file, absent) &&
      !std::filesystem::is_directory(name_or_file, absent))
    return {name_or_file, read_file_or_pipe(name_or_file, kMaxRecipeBytes)};
  for (const EmbeddedRecipe& recipe : embedded_recipes())
    if (name_or_file == recipe.name) return {std::string("embedded:") + recipe.name, recipe.text};
  std::string list;
  std::vector<std::string> names;
  for (const EmbeddedRecipe& recipe : embedded_recipes()) {
    list += std::string(list.empty() ? "" : ", ") + recipe.name;
    names.emplace_back(recipe.name);
  }
  const std::string near = nearest_word(name_or_file, names);
  fail(ErrorCode::kUsage, "no recipe '", shown(name_or_file),
       "': expected a readable file or one of the embedded recipes: ", list,
       near.empty() ? "" : "; did you mean '" + near + "'?");
}

}  // namespace retort::tools
