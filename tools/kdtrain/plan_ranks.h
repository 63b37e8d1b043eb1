// What of a plan changes where several ranks share each batch.
//
// Note [A plan for several ranks]
//   measured  on this machine, with one rank's threads: a rank's share of the work as a job of its
//             own, with the rows of the largest share in as many slices as a rank has. Its steps and
//             its memory are a rank's, but for what follows.
//   computed  the optimizer's state and its update, of which a rank has a part; the inbox for the
//             others' sums, and the nodes of their tree; what rank 0 gathers for a checkpoint, which
//             makes its memory the largest; the bytes that a rank sends in a step; the share of an
//             evaluation by its passes.
//   Not in it: the time of the exchange, which hangs on the machines (`kdtrain doctor` under the
//   launcher measures one of 64 MiB), and what ranks on one machine take from each other.
#pragma once
#include "tools/kdtrain/plan.h"
#include "tools/kdtrain/plan_measure.h"

namespace retort::tools {

/// The dry run of one rank of so many: its plans have the largest share of each batch.
DryRun share_of_ranks(DryRun run, int ranks);

/// Turns what was measured of a share into what a rank takes. settings, section: of the job, whole.
void count_in_ranks(const Settings& settings, const std::string& section,
                    const ExperimentData& data, Device device, int ranks, JobPlan* job);

}  // namespace retort::tools
