// provenance.json of a run folder: who made these numbers, from what, where. Its keys: Note [What
// provenance.json holds] of tools/report/report.h.
#pragma once
#include <map>
#include <string>

#include "engine/io/json.h"

namespace retort::tools {

/// The commit that this program was built from, "unknown" if that was not to be found out.
std::string built_commit();

/// What one sitting knows of itself.
struct Sitting {
  std::string command, device;
  std::map<std::string, std::string> data;  // hashes of samples by split (of a task: "task.split")
  std::map<std::string, std::string> weights;  // hashes of files by the path that the recipe gives
  std::string ranks = {};                      // who they are, where there are several
};

/// A sitting begins. Where it goes on with an earlier one that was of another program, machine,
/// device or command, that one stays known under "earlier", by the time it began.
void begin_provenance(const std::string& folder, const Sitting& sitting);
/// The run is over.
void finish_provenance(const std::string& folder);
/// Null if there is none, or it is damaged: it decides nothing but what a path held.
Json read_provenance(const std::string& folder);
/// The same for people, as comments of TOML.
std::string provenance_comment(const Sitting& sitting);

}  // namespace retort::tools
