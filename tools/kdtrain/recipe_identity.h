// Whether a run folder may go on with a recipe.
//
// Note [What a run's identity is]
//   What its results depend on. A key that changes no result (log lines, checkpoints, threads,
//   caches) may differ; so may a path whose file has the same content, and more seeds and arms may
//   be asked for. Samples and teachers are compared by the hashes in each job's checkpoints; of
//   other files that weights or orders come from, provenance.json knows the hash.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "kernels/common/context.h"
#include "tools/kdtrain/recipe.h"

namespace retort::tools {

struct RecipeChanges {
  std::vector<std::string> refused;  // "train.lr was 0.1, is 0.2"
  std::vector<std::string> told;     // may differ, in the same form
};

/// Jobs of an arm, a model or the teacher that have begun, as "arm/seed".
struct BegunJobs {
  std::vector<std::string> finished, failed, unfinished;
};

/// saved: recipe.resolved.toml of the folder. known_hash: of the file that a path of the saved
/// recipe meant, "" if unknown. begun: given where jobs that failed are tried again, for which a
/// learning rate and a norm to clip at may differ: for those arms alone, so that the saved recipe says
/// what the others were trained by. Jobs of such an arm that are done stay as they are, and are told;
/// one that would go on in the middle with another rate is refused. device: what the run goes on on.
RecipeChanges changes_since(const Recipe& now, const std::string& saved,
                            const std::function<std::string(const std::string& path)>& known_hash,
                            const std::function<BegunJobs(const std::string& who)>& begun,
                            Device device = Device::kCpu);

/// The keys that name a file of weights or of an order, as the recipe gives them, with the hashes
/// of the files: of everybody in every task. Files that are missing are left out.
std::map<std::string, std::string> hashes_of_files(const Recipe& recipe);

}  // namespace retort::tools
