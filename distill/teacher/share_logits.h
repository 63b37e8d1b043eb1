// Ranks that ask one teacher tell each other what it said.
#pragma once
#include "distill/teacher/logit_cache.h"
#include "engine/distributed/communicator.h"

namespace retort::distill {

/// Rows that this rank's cache kept since the last call go to all, and theirs come here. Collective.
///
/// Note [Logits that ranks share]
///   Each rank asks the teacher about its own slices, and keeps the rows in a cache of its own. A
///   row's bits do not depend on who computed it, so caches may hold different rows without changing
///   a byte of a run; but in another epoch, or of another arm, a sample belongs to another rank,
///   which would ask again. So whoever trains on several ranks counts new rows where ranks tell each
///   other about a step anyway, and calls this where there are any, before the teacher is asked: no
///   row is then computed by two of them, in whatever order samples come, unless both meet it in one
///   and the same step. Nothing is sent once all rows are known.
void share_new_rows(LogitCache& cache, Communicator& ranks);

}  // namespace retort::distill
