// ls, validate, schema: what can be said about recipes without running them.
#include <cstdio>

#include "tools/kdtrain/command_line.h"
#include "tools/kdtrain/extensions.h"
#include "tools/kdtrain/recipe.h"

namespace retort::tools {

int list_command(const CommandLine&) {
  for (const EmbeddedRecipe& embedded : embedded_recipes()) {
    const RecipeResult result = parse_recipe(embedded.name, embedded.text, {});
    std::printf("%-20s %s\n", embedded.name, result.recipe.base.text("description").c_str());
  }
  return 0;
}

std::optional<Recipe> checked_recipe(const CommandLine& line) {
  const RecipeText text =
      find_recipe(line.subject.empty() ? embedded_recipes().front().name : line.subject);
  RecipeResult result = parse_recipe(text.source, text.text, line.words);
  for (const std::string& warning : result.warnings)
    std::fprintf(stderr, "kdtrain: note: %s\n", warning.c_str());
  if (result.problems.empty()) {
    if (const auto& libraries = loaded_extensions(); !libraries.empty())
      result.recipe.base.set("libraries", libraries, "--load");
    return std::move(result.recipe);
  }
  std::fputs(format_problems(result, text.text).c_str(), stderr);
  return std::nullopt;
}

int validate_command(const CommandLine& line) {
  const auto checked = checked_recipe(line);
  if (!checked) return static_cast<int>(ErrorCode::kUsage);
  const Recipe& recipe = *checked;
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
