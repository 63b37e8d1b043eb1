#include "engine/distributed/launcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "tests/support/error_of.h"

namespace retort::test {
namespace {

using ::testing::HasSubstr;

Launch of(const std::map<std::string, std::string>& variables) {
  return find_launch([&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(Launcher, each_leaves_its_own_variables) {
  EXPECT_EQ(of({}).size, 1);
  EXPECT_EQ(of({}).variable, "");
  const Launch open = of({{"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_RANK", "3"}});
  EXPECT_EQ(open.size, 4);
  EXPECT_EQ(open.rank, 3);
  EXPECT_EQ(open.variable, "OMPI_COMM_WORLD_SIZE");
  EXPECT_EQ(open.family, MpiFamily::kOpenMpi);
  EXPECT_EQ(open.problem, "");
  const Launch mpich = of({{"PMI_SIZE", "2"}, {"PMI_RANK", "1"}});
  EXPECT_EQ(mpich.size, 2);
  EXPECT_EQ(mpich.rank, 1);
  EXPECT_EQ(mpich.family, MpiFamily::kMpich);
  const Launch slurm =
      of({{"SLURM_STEP_NUM_TASKS", "16"}, {"SLURM_PROCID", "9"}, {"PMIX_RANK", "9"}});
  EXPECT_EQ(slurm.size, 16);
  EXPECT_EQ(slurm.rank, 9);
  EXPECT_EQ(slurm.family, MpiFamily::kOpenMpi);
  EXPECT_EQ(slurm.problem, "");
}

TEST(Launcher, mpirun_inside_a_slurm_job_counts_and_not_the_job) {
  const Launch mpirun = of({{"SLURM_STEP_NUM_TASKS", "1"}, {"PMI_SIZE", "8"}});
  EXPECT_EQ(mpirun.size, 8);
  EXPECT_EQ(mpirun.family, MpiFamily::kMpich);
  EXPECT_EQ(of({{"SLURM_STEP_NUM_TASKS", "1"}}).size, 1);  // a batch script
  EXPECT_EQ(of({{"SLURM_NTASKS", "64"}}).size, 1);         // what was asked for, not started
  EXPECT_EQ(of({{"OMPI_COMM_WORLD_SIZE", ""}}).size, 1);   // set to nothing
}

TEST(Launcher, srun_without_pmi_starts_ranks_that_cannot_find_each_other) {
  EXPECT_THAT(of({{"SLURM_STEP_NUM_TASKS", "4"}}).problem,
              HasSubstr("launched as 4 ranks, but srun gave them no way to find each other: use "
                        "srun --mpi=pmix"));
  EXPECT_EQ(of({{"SLURM_STEP_NUM_TASKS", "1"}}).problem, "");
}

TEST(Launcher, variables_that_are_no_numbers_are_named) {
  for (const char* value : {"two", "0", "-1", "4x", "99999999999", "1048577"})
    EXPECT_THAT(error_of(
                    [&] {
                      of({{"PMI_SIZE", value}});
                    },
                    ErrorCode::kUsage),
                HasSubstr("PMI_SIZE is '" + std::string(value) + "'"));
  EXPECT_THAT(error_of(
                  [&] {
                    of({{"PMI_SIZE", "2"}, {"PMI_RANK", "2"}});
                  },
                  ErrorCode::kUsage),
              HasSubstr("PMI_RANK is '2': expected a number in [0, 1]"));
}

TEST(Launcher, a_world_of_another_size_says_what_to_launch_with) {
  const Launch four = of({{"OMPI_COMM_WORLD_SIZE", "4"}});
  EXPECT_EQ(launch_problem(four, MpiFamily::kOpenMpi, 4), "");
  EXPECT_EQ(launch_problem(four, MpiFamily::kMpich, 1),
            "launched as 4 ranks, but MPICH sees 1: use mpirun.mpich, or srun --mpi=pmi2");
  EXPECT_EQ(launch_problem(four, MpiFamily::kOpenMpi, 1),
            "launched as 4 ranks, but Open MPI sees 1: use mpirun.openmpi, or srun --mpi=pmix");
}

}  // namespace
}  // namespace retort::test
