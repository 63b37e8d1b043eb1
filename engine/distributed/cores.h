// Which cores a rank may use, and how many threads are its share.
#pragma once
#include <array>
#include <cstdint>
#include <span>

namespace retort {

/// One bit a core; cores from 1,024 on are not counted.
using CoreMask = std::array<std::uint64_t, 16>;

CoreMask own_cores();
int count_cores(const CoreMask& mask);

/// Threads of a rank that may use the cores `mine`, beside the ranks of its node (itself among
/// them): its cores divided by the ranks that may use one of them, at least 1. Launchers differ:
/// Open MPI binds two ranks to a core each and more to none, MPICH binds none.
int threads_per_rank(const CoreMask& mine, std::span<const CoreMask> on_node);

}  // namespace retort
