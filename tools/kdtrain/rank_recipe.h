// What a recipe means for several ranks: its slices, whether ranks fit them, and what must be equal
// on all of them.
#pragma once
#include <string>

#include "engine/distributed/handshake.h"
#include "engine/runtime/device.h"
#include "tools/kdtrain/recipe.h"

namespace retort::tools {

class JobList;

/// train.slices = 0 is as many as ranks at the first start, and what the run began with ever after:
/// saved is the folder's recipe.resolved.toml, "" where there is none. One rank: 0 stays, a slice.
void settle_slices(Recipe* recipe, const std::string& saved, int ranks);

/// Error(kUsage), with the key's place, for slices that so many ranks cannot share.
void check_ranks(const JobList& jobs, int ranks);

/// Error(kUsage) for a device on which so many ranks do not train.
void check_rank_device(Device device, int ranks);

/// Every key of everybody, and the content of the files that they name.
void add_recipe(const Recipe& recipe, Handshake* handshake);

}  // namespace retort::tools
