// libFuzzer target of the recipe reader. By hand:
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -DRETORT_FUZZ_MAIN -I.
//     tests/fuzz/recipe_fuzz.cpp tools/kdtrain/{toml_reader,schema,recipe}*.cpp
//     -o recipe_fuzz -lretort && ./recipe_fuzz -max_len=4096
// tests/tools/recipe_test.cpp replays its regressions and a fixed set of mutations in every test
// run.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "tools/kdtrain/recipe.h"

#if defined(RETORT_FUZZ_MAIN)
namespace retort::tools {
const std::vector<EmbeddedRecipe>& embedded_recipes() {
  static const std::vector<EmbeddedRecipe> none;
  return none;
}
}  // namespace retort::tools
#endif

/// Never crashes or throws; what is accepted round-trips through recipe.resolved.toml.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace retort::tools;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const RecipeResult first = parse_recipe("fuzz.toml", text, {});
  if (!first.problems.empty()) {
    if (format_problems(first, text).empty()) std::abort();
    return 0;
  }
  const std::string resolved = resolved_toml(first.recipe);
  const RecipeResult second = parse_recipe("fuzz.toml", resolved, {});
  if (!second.problems.empty() || second.recipe.arms.size() != first.recipe.arms.size() ||
      second.recipe.models.size() != first.recipe.models.size() ||
      second.recipe.tasks.size() != first.recipe.tasks.size())
    std::abort();
  for (const KeySpec& spec : schema())
    if (spec.key != "name" && spec.key != "size" && spec.key != "arms" &&
        to_toml(first.recipe.base.value(spec.key)) != to_toml(second.recipe.base.value(spec.key)))
      std::abort();
  return 0;
}
