#include <cstdio>
#include <filesystem>
#include <optional>

#include "engine/io/file.h"
#include "tools/kdtrain/command_line.h"
#include "tools/kdtrain/paths.h"
#include "tools/kdtrain/rank_status.h"
#include "tools/kdtrain/run_folder.h"
#include "tools/report/report.h"

namespace retort::tools {

int report_command(const CommandLine& line) {
  const std::filesystem::path folder = line.subject;
  ReportText text;
  std::optional<Recipe> of;
  const std::string recipe = (folder / "recipe.resolved.toml").string();
  if (std::filesystem::is_regular_file(recipe)) {
    const RecipeResult result = parse_recipe(recipe, read_file(recipe, kMaxRecipeBytes), {});
    if (result.problems.empty()) of = result.recipe;  // else of another version
  }
  if (of) text = report_text(*of);
  write_report(folder, text);
  std::fputs(results_table(folder, text).c_str(), stdout);
  if (of) std::fputs(paths_table(*of, folder).c_str(), stdout);
  std::printf("%s\n", (folder / "report.html").string().c_str());
  if (const std::string told = told_of_ranks(folder.string()); !told.empty())
    std::fprintf(stderr, "kdtrain: note: %s\n", told.c_str());
  return 0;
}

}  // namespace retort::tools
