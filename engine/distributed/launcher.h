// Who started this process, as its environment says it, and whether MPI agrees.
#pragma once
#include <functional>
#include <string>

namespace retort {

/// The two families of MPI; each has a plug-in, libretort_mpi_<name>.
enum class MpiFamily { kOpenMpi, kMpich };
constexpr const char* name_of(MpiFamily family) {
  return family == MpiFamily::kOpenMpi ? "openmpi" : "mpich";
}

struct Launch {
  int size = 1;          // ranks that were started together; 1 without a launcher
  int rank = 0;          // of this process, by the launcher's count
  std::string variable;  // that says the size: "OMPI_COMM_WORLD_SIZE"; "" without a launcher
  MpiFamily family = MpiFamily::kOpenMpi;  // whose launcher it is
  std::string problem;  // a sentence if this launcher cannot start ranks that find each other
};

/// What the launcher left in the environment: OMPI_COMM_WORLD_SIZE (mpirun of Open MPI), PMI_SIZE
/// (mpirun of MPICH and its kin, srun --mpi=pmi2), SLURM_STEP_NUM_TASKS (srun), the first that is
/// there. Loads nothing. `variable` answers like getenv.
/// Throws Error(kUsage) if a size or a rank is no such number, naming variable and value.
Launch find_launch(const std::function<const char*(const char*)>& variable);
Launch find_launch();  // of this process

/// "" if MPI of this family sees as many ranks as were launched, else the sentence that says what
/// to launch with. The other family's mpirun starts N runs of one rank each, silently.
std::string launch_problem(const Launch& launch, MpiFamily library, int size);

}  // namespace retort
