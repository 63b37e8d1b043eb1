// Measuring that ranks share: each has some of the passes, and all get every row.
#pragma once
#include <functional>

#include "distill/metrics/measure.h"
#include "engine/distributed/communicator.h"

namespace retort::distill {

/// Passes [first, second) of so many, consecutive by rank, are this rank's.
std::pair<std::int64_t, std::int64_t> passes_of_rank(std::int64_t passes,
                                                     const Communicator& ranks);

/// Runs `pass`, which fills the rows of this rank's passes, and puts those of all ranks, in the order
/// of the passes, in their place. Collective. An Error of one rank is thrown by all of them.
void share_rows(const std::function<void()>& pass, Measurement* rows, Communicator& ranks);

}  // namespace retort::distill
