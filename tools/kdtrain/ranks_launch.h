// kdtrain run --ranks N: the short form of mpirun -np N kdtrain run.
#pragma once
#include "tools/kdtrain/command_line.h"

namespace retort::tools {

/// -1 if this process is to run itself: no --ranks, one rank, or it is one of those started. Else
/// starts the launcher that belongs to an MPI that Retort was built with (RETORT_MPIRUN=FILE: that
/// one) in a process group of its own, which does not outlive this process, and waits: the exit
/// status that the run folder's status.json says, or the launcher's where there was no run. A signal
/// that asks to stop is handed on as SIGUSR1, which all launchers give to all ranks at once: they
/// stop after a checkpoint. A second one ends them now.
/// Errors    kUsage for --ranks under a launcher with another number; kDevice without a launcher.
int launch_ranks(const CommandLine& line, int argc, char** argv);

}  // namespace retort::tools
