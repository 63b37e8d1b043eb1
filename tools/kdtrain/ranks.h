// kdtrain on several ranks: who prints, and what may run at all.
//
// Rank 0 prints. Another rank prints only the sentence of a failure that it alone knows, led by
// "rank 2 (host, pid)". A launcher ends all ranks as soon as one exits with another status than 0,
// so what all ranks know is printed before any of them leaves.
#pragma once
#include <functional>

#include "engine/distributed/communicator.h"
#include "tools/kdtrain/command_line.h"

namespace retort::tools {

/// -1 if the command may go on, else the exit status. Where a launcher started several ranks, and
/// the command is one that works on each of them as a copy: have all the same command? A rank that
/// was given another one waits for the others, who never come. Without an MPI that can be used, or
/// with one of another launcher, nobody can be asked, and the copies go on.
int compare_commands(const CommandLine& line);

/// -1 if the command may go on. Commands that write, but run, work with one rank so far: several
/// copies would race for the same files. They get 2, the exit status, after rank 0 has said so and before
/// anything was written.
int refuse_ranks(const CommandLine& line);

/// True if a launcher started several ranks.
bool launched_together();

/// Starts the ranks, sees that all are of the same build and have the same command, gives each its
/// share of the cores (unless --threads or the environment says how many), and calls body on all of
/// them. A rank that is lost meanwhile is named, and all leave with 7; watched: within body, too. The
/// exit status.
int with_ranks(const CommandLine& line, const std::function<int(Communicator&)>& body,
               bool watched = false);

/// Whether --threads or the environment says how many threads a rank has.
bool threads_are_given(const CommandLine& line);

/// Seconds after which a rank that is not heard of, or stands still, is lost: RETORT_PEER_TIMEOUT,
/// else 4.
double peer_patience_s();

/// Milliseconds that the slowest rank takes to exchange an array of `bytes`, the median of three:
/// every rank sends each of the others its part of the array, and gets that rank's part back. The
/// pattern of a training step. Collective. Throws Error(kPeer) if other bytes arrive than were sent.
double exchange_ms(Communicator& ranks, std::size_t bytes);

/// "" on rank 0 and before there are ranks, else "rank 2 (host, pid 77): ". Takes no memory.
const char* rank_prefix() noexcept;
/// Whether this process prints what all ranks know.
inline bool prints() noexcept { return *rank_prefix() == '\0'; }

}  // namespace retort::tools
