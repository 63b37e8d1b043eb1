// A program that uses MPI itself, before, during and after what Retort does with it. With an argument it asks
// MPI for one thread only.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <vector>

#include "engine/distributed/pulse.h"
#include "kernels/common/check.h"
#include "tests/support/ranks_log.h"

int main(int argc, char** argv) {
  int level = 0, rank = 0, sum = 0, finalised = 1;
  const bool one_thread = argc > 1;
  if (one_thread)
    MPI_Init(&argc, &argv);
  else
    MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &level);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  try {
    retort::Communicator& ranks = retort::Communicator::start();
    if (one_thread) {  // enough for the calls of one thread, but not for a pulse beside it
      try {
        const retort::Pulse pulse(ranks, {});
      } catch (const retort::Error& error) {
        if (rank == 0) retort::test::say(error.what());
      }
    }
    // A message of its own stands in the way of ours: they must not meet.
    const int mine = 1000 + rank, other = 1 - rank;
    int theirs = 0, got = 0;
    MPI_Request request;
    MPI_Irecv(&theirs, 1, MPI_INT, other, 1, MPI_COMM_WORLD, &request);
    int ours = rank;
    ranks.transfer(std::vector<retort::Communicator::Transfer>{{&ours, 4, other, true},
                                                               {&got, 4, other, false}});
    MPI_Send(&mine, 1, MPI_INT, other, 1, MPI_COMM_WORLD);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    ranks.finish();
    MPI_Finalized(&finalised);
    MPI_Allreduce(&ours, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    const bool good = got == other && theirs == 1000 + other && finalised == 0 && sum == 1;
    if (rank == 0) retort::test::say((good ? "good with " : "bad with ") + ranks.library());
  } catch (const retort::Error& error) {
    retort::test::say(error.what());
  }
  MPI_Finalize();
  return 0;
}
