// Several ranks, under every launcher that is here.
#include <gmock/gmock.h>

#include "engine/distributed/communicator.h"
#include "tests/support/error_of.h"
#include "tests/support/launch.h"

namespace retort::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class Launch : public UnderMpi {};
INSTANTIATE_TEST_SUITE_P(Mpi, Launch, ::testing::ValuesIn(known_mpis()), family_of);

const std::string kProgram = RETORT_RANKS_PROGRAM;

TEST_P(Launch, every_call_gives_what_it_says_on_2_3_and_4_ranks) {
  for (const int ranks : {2, 3, 4}) {
    const Launched r = launch(GetParam(), ranks, {kProgram, "calls"});
    EXPECT_EQ(r.status, 0) << r.all();
    EXPECT_THAT(r.said, HasSubstr(join(ranks, " ranks, 1 nodes, '",
                                       GetParam().family == "openmpi" ? "Open MPI" : "MPICH")));
  }
}

TEST_P(Launch, one_rank_is_no_distributed_run) {
  const Launched r = launch(GetParam(), 1, {kProgram, "calls"}, {"RETORT_MPI_LIBRARY=/nowhere.so"});
  EXPECT_EQ(r.status, 0) << r.all();
  EXPECT_THAT(r.said, HasSubstr("1 ranks, 1 nodes, ''"));
}

TEST_P(Launch, sizes_that_differ_are_an_error_and_not_a_wait) {
  const Launched less = launch(GetParam(), 2, {kProgram, "sizes", "60"});
  EXPECT_NE(less.status, 0) << less.all();
  EXPECT_THAT(less.said, HasSubstr("rank 1, status 7: [transfer] rank 0 ("));
  EXPECT_THAT(less.said, HasSubstr("sent 60 bytes where 100 are received"));
  EXPECT_THAT(less.said, HasSubstr("again: [transfer] after an error in [transfer]: rank 0 ("));
  const Launched more = launch(GetParam(), 2, {kProgram, "sizes", "160"});
  EXPECT_NE(more.status, 0) << more.all();
  EXPECT_THAT(more.said, HasSubstr("rank 1, status 7: [transfer] "));
}

// The matrix of launcher and library: each one's own is tested above, here the other's.
TEST_P(Launch, a_library_that_the_launcher_does_not_know_is_refused_on_all_ranks) {
  for (const MpiAtHand& other : known_mpis()) {
    if (other.family == GetParam().family) continue;
    if (other.plugin.empty()) GTEST_SKIP() << "no " << other.family << " here";
    const Launched r =
        launch(GetParam(), 2, {kProgram, "calls"}, {"RETORT_MPI_LIBRARY=" + other.plugin});
    EXPECT_NE(r.status, 0) << r.all();
    const std::string what = other.family == "openmpi"
                                 ? "Open MPI sees 1: use mpirun.openmpi, or srun --mpi=pmix"
                                 : "MPICH sees 1: use mpirun.mpich, or srun --mpi=pmi2";
    EXPECT_THAT(r.said, HasSubstr(", status 2: launched as 2 ranks, but " + what));
  }
}

TEST_P(Launch, without_a_plugin_one_sentence_says_where_it_was_looked_for) {
  const Launched r = launch(GetParam(), 2, {kProgram, "calls"}, {"RETORT_MPI_LIBRARY=/no/such.so"});
  EXPECT_NE(r.status, 0) << r.all();
  EXPECT_THAT(
      r.said,
      HasSubstr(", status 8: launched as 2 ranks, but there is no MPI plug-in: /no/such.so"));
  EXPECT_THAT(r.said, HasSubstr("No such file"));
}

TEST_P(Launch, every_field_of_a_handshake_is_compared) {
  const Launched same = launch(GetParam(), 3, {kProgram, "handshake", "none"});
  EXPECT_EQ(same.status, 0) << same.all();
  const Launched differ = launch(GetParam(), 3, {kProgram, "handshake", "training data"});
  EXPECT_EQ(differ.status, 2) << differ.all();
  EXPECT_THAT(differ.said, HasSubstr("rank 0: rank 2 ("));
  EXPECT_THAT(differ.said, HasSubstr(") has other training data: f3a1 instead of 8c1e"));
}

TEST_P(Launch, a_program_that_initialised_mpi_keeps_it) {
  const Launched r = launch(GetParam(), 2, {GetParam().embedder});
  EXPECT_EQ(r.status, 0) << r.all();
  EXPECT_THAT(
      r.said,
      HasSubstr("good with " + std::string(GetParam().family == "openmpi" ? "Open MPI" : "MPICH")));
}

TEST_P(Launch, a_program_that_asked_mpi_for_one_thread_gets_no_pulse) {
  const Launched r = launch(GetParam(), 2, {GetParam().embedder, "one thread"});
  EXPECT_EQ(r.status, 0) << r.all();
  EXPECT_THAT(r.said, HasSubstr("[pulse] expected a program that initialises MPI with "
                                "MPI_THREAD_SERIALIZED\ngood with "));
}

TEST(OneRank, does_nothing_and_loads_nothing) {
  Communicator& ranks = Communicator::start();
  EXPECT_EQ(ranks.size(), 1);
  EXPECT_EQ(ranks.rank(), 0);
  EXPECT_EQ(ranks.nodes(), 1);
  EXPECT_EQ(ranks.of(0).pid, ::getpid());
  EXPECT_EQ(ranks.link(), nullptr);
  const int mine = 7;
  int all = 0;
  ranks.gather(&mine, &all, sizeof mine);
  EXPECT_EQ(all, 7);
  ranks.broadcast(&all, sizeof all, 0);
  std::int64_t word = -3;
  ranks.agree({&word, 1});
  EXPECT_EQ(word, -3);
  ranks.transfer({});
  EXPECT_THAT(error_of([&] { ranks.broadcast(&all, 4, 1); }, ErrorCode::kUsage),
              HasSubstr("expected a rank below 1, got 1"));
  const Communicator::Transfer self[] = {{&all, 4, 0, true}};
  EXPECT_THAT(error_of([&] { ranks.transfer(self); }, ErrorCode::kUsage),
              HasSubstr("expected another rank of 1, got 0"));
  ranks.finish();
  EXPECT_THAT(slurp("/proc/self/maps"), Not(HasSubstr("libmpi")));
}

}  // namespace
}  // namespace retort::test
