// The mean of numbers that several processes have, as one process would compute it: the same bits
// on any number of ranks.
//
//   mpirun -np 2 ranks        (without mpirun: one rank, and no MPI is loaded)
#include <cstdio>
#include <vector>

#include "engine/distributed/communicator.h"
#include "engine/distributed/handshake.h"
#include "kernels/common/check.h"

namespace {

constexpr std::int64_t kSlices = 8, kNumbers = 1000;

// Slice s of the numbers, summed: work that some rank does.
double sum_of_slice(std::int64_t s) {
  double sum = 0;
  for (std::int64_t i = s * kNumbers / kSlices; i < (s + 1) * kNumbers / kSlices; ++i)
    sum += 1.0 / static_cast<double>(i + 1);
  return sum;
}

int run() {
  retort::Communicator& ranks = retort::Communicator::start();
  retort::handshake_of_build().add("number of slices", std::to_string(kSlices)).compare(ranks);

  // Each rank works on its slices; where it leaves zeros, another one has the sum.
  const std::int64_t n = ranks.size(), r = ranks.rank();
  std::vector<double> mine(kSlices), all(static_cast<std::size_t>(n) * kSlices);
  for (std::int64_t s = r * kSlices / n; s < (r + 1) * kSlices / n; ++s)
    mine[static_cast<std::size_t>(s)] = sum_of_slice(s);
  ranks.gather(mine.data(), all.data(), mine.size() * sizeof(double));

  // Added in the order of the slices, whoever computed them.
  double sum = 0;
  for (std::int64_t s = 0; s < kSlices; ++s)
    for (std::int64_t rank = 0; rank < n; ++rank)
      sum += all[static_cast<std::size_t>(rank * kSlices + s)];
  if (r == 0) std::printf("mean %a of %d ranks\n", sum / kNumbers, ranks.size());
  ranks.finish();
  return 0;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (const retort::Error& error) {  // no finish(): the launcher ends the other ranks
    std::fprintf(stderr, "ranks: %s\n", error.what());
    return static_cast<int>(error.code());
  }
}
