#include "engine/distributed/launcher.h"

#include <charconv>
#include <cstdlib>
#include <cstring>

#include "engine/io/file.h"
#include "kernels/common/check.h"

namespace retort {
namespace {

constexpr int kMostRanks = 1 << 20;

int number(const char* name, const char* text, int least, int most) {
  int value = 0;
  const char* const end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, value);
  RETORT_CHECK(error == std::errc() && stop == end && value >= least && value <= most,
               "the launcher's variable ", name, " is '", escaped(text),
               "': expected a number in [", least, ", ", most, "]");
  return value;
}

const char* display_name(MpiFamily family) {
  return family == MpiFamily::kOpenMpi ? "Open MPI" : "MPICH";
}

}  // namespace

Launch find_launch(const std::function<const char*(const char*)>& variable) {
  struct Known {
    const char *size, *rank;
    MpiFamily family;
  };
  // mpirun inside a Slurm job leaves Slurm's variables in place, so they come last.
  constexpr Known kKnown[] = {
      {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", MpiFamily::kOpenMpi},
      {"PMI_SIZE", "PMI_RANK", MpiFamily::kMpich},
      {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID", MpiFamily::kOpenMpi},
  };
  Launch launch;
  for (const Known& known : kKnown) {
    const char* const size = variable(known.size);
    if (size == nullptr || *size == '\0') continue;
    launch.size = number(known.size, size, 1, kMostRanks);
    launch.variable = known.size;
    launch.family = known.family;
    if (const char* const rank = variable(known.rank); rank != nullptr && *rank != '\0')
      launch.rank = number(known.rank, rank, 0, launch.size - 1);
    if (known.size == kKnown[2].size && launch.size > 1 && variable("PMIX_RANK") == nullptr)
      launch.problem = join("launched as ", launch.size,
                            " ranks, but srun gave them no way to find each other: use srun "
                            "--mpi=pmix with Open MPI, --mpi=pmi2 with MPICH, or mpirun");
    break;
  }
  return launch;
}

Launch find_launch() {
  return find_launch([](const char* name) { return std::getenv(name); });
}

std::string launch_problem(const Launch& launch, MpiFamily library, int size) {
  if (launch.size == size) return "";
  return join("launched as ", launch.size, launch.size == 1 ? " rank, but " : " ranks, but ",
              display_name(library), " sees ", size, ": use mpirun.", name_of(library),
              ", or srun --mpi=", library == MpiFamily::kOpenMpi ? "pmix" : "pmi2");
}

}  // namespace retort
