// How a program with many ranks ends when one of them is lost. Only programs call it.
#pragma once
#include "engine/distributed/pulse.h"

namespace retort {

/// Ends this process with status 7 without unwinding: destructors would wait for peers and devices
/// that never answer, and MPI_Finalize for the dead. The teller waits 0.2 s, in which the others
/// learn of it, and asks MPI to end all ranks; the others, and a teller whose MPI is stuck, leave by
/// themselves after 2 s. One rank alone aborts: several at once have crashed Open MPI's mpirun. A
/// rank that left after an error gets 2 s more to say which. Flushes nothing: the thread that is
/// stuck may hold what flushing would wait for.
///
///   Pulse pulse(ranks, {.on_loss = [&](const PeerLoss& loss) {
///     if (loss.teller) say(loss.sentence(ranks));
///     leave_together(ranks, loss);
///   }});
[[noreturn]] void leave_together(Communicator& ranks, const PeerLoss& loss);

}  // namespace retort
