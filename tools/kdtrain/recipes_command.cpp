// ls, validate, schema: what can be said about recipes without running them.
#include <cstdio>
#include <filesystem>

#include "engine/io/file.h"
#include "engine/io/json.h"
#include "tools/kdtrain/command_line.h"
#include "tools/kdtrain/error_codes.h"
#include "tools/kdtrain/extensions.h"
#include "tools/kdtrain/prepare.h"
#include "tools/kdtrain/recipe.h"

namespace retort::tools {

namespace {

template <class T, class F>
std::string joined(const std::vector<T>& all, const F& text_of) {
  std::string out;
  for (const T& one : all) out += (out.empty() ? "" : ", ") + text_of(one);
  return out;
}

// "KD (kd)": an arm as the report and as the files call it.
std::string title_of(const Arm& arm) {
  return arm.label == arm.name ? arm.name : arm.label + " (" + arm.name + ")";
}

Json json_of(const Recipe& recipe, const char* name) {
  Json json = Json::object(), arms = Json::array(), models = Json::array(), tasks = Json::array();
  for (const Arm& arm : recipe.arms) arms.push(arm.name);
  for (const ModelSpec& model : recipe.models) models.push(model.name);
  for (const TaskSpec& task : recipe.tasks) tasks.push(task.name);
  json.set("name", name).set("description", recipe.base.text("description"));
  json.set("data", recipe.base.text("data.format"))
      .set("teacher", recipe.base.text("teacher.arch"));
  json.set("student", recipe.base.text("student.arch"));
  return json.set("arms", std::move(arms))
      .set("models", std::move(models))
      .set("tasks", std::move(tasks));
}

void print_recipe(const Recipe& recipe, const std::string& name) {
  const Settings& s = recipe.base;
  std::printf("%s: %s\n\n", name.c_str(), s.text("description").c_str());
  std::printf("  data     %s\n", s.text("data.format").c_str());
  std::printf("  teacher  %s\n", s.text("teacher.arch").c_str());
  std::printf("  student  %s\n", s.text("student.arch").c_str());
  if (!recipe.models.empty())
    std::printf("  models   %s\n",
                joined(recipe.models, [](const ModelSpec& m) { return m.name; }).c_str());
  if (!recipe.tasks.empty())
    std::printf("  tasks    %s\n",
                joined(recipe.tasks, [](const TaskSpec& t) { return t.name; }).c_str());
  std::printf("  arms     %s\n  seeds    %s\n", joined(recipe.arms, title_of).c_str(),
              to_toml(s.value("seeds")).c_str());
  std::printf(
      "\nkdtrain show %s prints it, kdtrain cp %s my.toml copies it, kdtrain plan %s measures it\n",
      name.c_str(), name.c_str(), name.c_str());
}

}  // namespace

int list_command(const CommandLine& line) {
  if (!line.subject.empty()) {
    const RecipeText text = find_recipe(line.subject);
    const RecipeResult result = parse_recipe(text.source, text.text, {});
    if (!result.problems.empty()) {
      std::fputs(format_problems(result, text.text).c_str(), stderr);
      return static_cast<int>(ErrorCode::kUsage);
    }
    if (line.json)
      std::printf("%s\n", json_of(result.recipe, line.subject.c_str()).dump().c_str());
    else
      print_recipe(result.recipe, line.subject);
    return 0;
  }
  Json all = Json::array();
  for (const EmbeddedRecipe& embedded : embedded_recipes()) {
    const RecipeResult result = parse_recipe(embedded.name, embedded.text, {});
    if (line.json)
      all.push(json_of(result.recipe, embedded.name));
    else
      std::printf("%-20s %s\n", embedded.name, result.recipe.base.text("description").c_str());
  }
  if (line.json) std::printf("%s\n", all.dump().c_str());
  return 0;
}

int explain_command(const CommandLine& line) {
  if (line.subject.empty()) {
    for (const ErrorRow& row : error_rows()) std::printf("%s  %s\n", row.code, row.what);
    return 0;
  }
  const std::string text = explain_error(line.subject);
  RETORT_CHECK(!text.empty(), "[explain] expected the code of an error, such as RT0301, got '",
               escaped(line.subject), "': `kdtrain explain` lists all");
  std::fputs(text.c_str(), stdout);
  return 0;
}

int show_command(const CommandLine& line) {
  std::fputs(find_recipe(line.subject).text.c_str(), stdout);
  return 0;
}

int copy_command(const CommandLine& line) {
  const RecipeText text = find_recipe(line.subject);
  std::error_code error;
  RETORT_CHECK(!std::filesystem::exists(line.out, error), "[cp] ", escaped(line.out, 4096),
               " is there already: expected the name of a new file");
  write_file_atomically(line.out, text.text);
  std::printf("%s: a copy of %s; kdtrain validate %s checks it\n", line.out.c_str(),
              text.source.c_str(), line.out.c_str());
  return 0;
}

std::optional<Recipe> checked_recipe(const CommandLine& line, bool tells) {
  const RecipeText text =
      find_recipe(line.subject.empty() ? embedded_recipes().front().name : line.subject);
  RecipeResult result = parse_recipe(text.source, text.text, line.words);
  for (const std::string& warning : result.warnings)
    if (tells) std::fprintf(stderr, "kdtrain: note: %s\n", warning.c_str());
  if (result.problems.empty()) {
    if (const auto& libraries = loaded_extensions(); !libraries.empty())
      result.recipe.base.set("libraries", libraries, "--load");
    return std::move(result.recipe);
  }
  if (tells) std::fputs(format_problems(result, text.text).c_str(), stderr);
  return std::nullopt;
}

int validate_command(const CommandLine& line) {
  const auto checked = checked_recipe(line);
  if (!checked) return static_cast<int>(ErrorCode::kUsage);
  const Recipe& recipe = *checked;
  if (!line.no_data) check_files(recipe);
  const std::size_t seeds =
      recipe.base.integers("seeds").size() * recipe.base.integers("teacher.seeds").size();
  std::printf("%s: valid; %zu arm%s x %zu seed%s\n", recipe.source.c_str(), recipe.arms.size(),
              recipe.arms.size() == 1 ? "" : "s", seeds, seeds == 1 ? "" : "s");
  const auto learns = [](const Teachers& teachers) {
    std::string from;
    for (const std::string& name : teachers) from += (from.empty() ? " <- " : ", ") + name;
    return teachers == Teachers{"teacher"} ? std::string() : from;
  };
  for (const ModelSpec& model : recipe.models)
    std::printf("  model %s%s\n", model.name.c_str(), learns(model.teachers).c_str());
  for (const TaskSpec& task : recipe.tasks) std::printf("  task %s\n", task.name.c_str());
  for (const Arm& arm : recipe.arms)
    std::printf("  %s%s\n", arm.name.c_str(), learns(arm.teachers).c_str());
  return 0;
}

int schema_command(const CommandLine& line) {
  const std::string text = line.json ? schema_as_json(line.subject) : schema_as_text(line.subject);
  if (schema_as_text(line.subject).empty()) {
    const std::string near = nearest_key(line.subject);
    fail(ErrorCode::kUsage, "schema: there is no section or key '", line.subject, "'",
         near.empty() ? "" : "; did you mean '" + near + "'?");
  }
  std::fputs(text.c_str(), stdout);
  return 0;
}

}  // namespace retort::tools
