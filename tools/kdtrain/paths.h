// Chains of assistants: which path to a net of some kind was the best of its length.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "engine/io/json.h"
#include "tools/kdtrain/recipe.h"

namespace retort::tools {

/// A chain from the teacher to one model or arm, and what its end reached.
struct AssistantPath {
  std::string net;                 // at its end: "plain2", "mlp hidden = [4]"
  std::vector<std::string> names;  // from the teacher on: {"teacher", "a8", "via_8"}
  double value = 0;

  std::size_t assistants() const { return names.size() - 2; }
};

/// For every net at the end of a chain, and every number of assistants before it, the chain that
/// reached most; by net as the recipe first names it, then by length. Nets of one architecture are
/// told apart by the options in which they differ.
///
///   best(net, k) = max over nets m of the edge (m, net) behind best(m, k - 1)
///
/// is the dynamic program by which TAKD finds the best path of a length without training all: each
/// row is one such best(net, k), and the next recipe need only go on from these. Chains that the
/// run did not train are not in it, and those that learn from labels alone are no chains.
///
/// results: results.json of a run of this recipe. `metric`: of its arms; the mean over seeds counts.
/// Errors    kBadInput where results has no list of arms.
/// Source    Mirzadeh et al. 2020 (TAKD), arXiv:1902.03393, section 4.3.
std::vector<AssistantPath> best_paths(const Recipe& recipe, const Json& results,
                                      const std::string& metric);

/// The same as lines of text, of "validation.accuracy" where the run has it (nothing should be
/// chosen on test samples), else of "test.accuracy"; "" for a recipe without assistants.
std::string paths_table(const Recipe& recipe, const std::filesystem::path& run_folder);

}  // namespace retort::tools
