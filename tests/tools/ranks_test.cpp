// kdtrain under the launchers: what works on several ranks, and what is refused before it begins.
#include "tools/kdtrain/ranks.h"

#include "tests/support/launch.h"
#include "tests/tools/kdtrain_fixture.h"
#include "tools/kdtrain/error_codes.h"

namespace retort::tools {
namespace {

using test::family_of;
using test::known_mpis;
using test::launch;
using test::Launched;
using test::MpiAtHand;

class Ranks : public test::UnderMpi {
 protected:
  // With the ranks' share of the cores, whatever the environment of the tests says.
  Launched run(int ranks, std::vector<std::string> args,
               std::vector<std::string> variables = {}) const {
    args.insert(args.begin(), RETORT_KDTRAIN);
    variables.insert(variables.begin(), {"RETORT_NUM_THREADS=", "OMP_NUM_THREADS="});
    return launch(GetParam(), ranks, args, variables);
  }
  static int count(const std::string& text, const std::string& word) {
    int n = 0;
    for (std::size_t at = 0; (at = text.find(word, at)) != std::string::npos; ++at) ++n;
    return n;
  }
  test::TemporaryFolder folder_;
};
INSTANTIATE_TEST_SUITE_P(Mpi, Ranks, ::testing::ValuesIn(known_mpis()), family_of);

TEST_P(Ranks, scoring_is_refused_once_before_it_writes) {
  const Launched r = run(2, {"score", "parity_extraction", "--out", folder_ / "out"});
  EXPECT_EQ(r.status, 2) << r.text;
  EXPECT_EQ(count(r.text,
                  "kdtrain: error[RT0220]: `kdtrain score` works with one rank so far, and 2 were "
                  "launched ("),
            1)
      << r.text;
  EXPECT_EQ(count(r.text, "kdtrain: "), 1) << r.text;
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

TEST_P(Ranks, one_rank_under_a_launcher_is_an_ordinary_run) {
  const Launched r = run(1, {"cp", "parity_extraction", folder_ / "mine.toml"});
  EXPECT_EQ(r.status, 0) << r.text;
  EXPECT_TRUE(fs::exists(folder_ / "mine.toml"));
}

// Refusing needs no MPI that works: the environment is enough.
TEST_P(Ranks, it_is_refused_without_a_plugin_too) {
  const Launched r = run(2, {"score", "parity_extraction", "--out", folder_ / "out"},
                         {"RETORT_MPI_LIBRARY=/no/such.so"});
  EXPECT_NE(r.status, 0) << r.text;
  EXPECT_EQ(count(r.text, "error[RT0220]"), 1) << r.text;
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

TEST_P(Ranks, doctor_says_who_they_are_and_how_long_an_exchange_takes) {
  const Launched r = run(3, {"doctor", "--threads", "5"});
  EXPECT_EQ(r.status, 0) << r.text;
  EXPECT_EQ(count(r.text, "3 on 1 node, "), 1) << r.text;  // rank 0 prints
  for (const char* row : {"\nrank 0 ", "\nrank 1 ", "\nrank 2 ", "\n64 MiB exchange "})
    EXPECT_EQ(count("\n" + r.text, row), 1) << row << r.text;
  EXPECT_EQ(count(r.text, ", 5 threads\n"), 3) << r.text;
  EXPECT_EQ(count(r.text, "version "), 1) << r.text;
}

TEST_P(Ranks, doctor_gives_each_rank_its_share_of_the_cores) {
  const Launched r = run(2, {"doctor", "--json"});
  ASSERT_EQ(r.status, 0) << r.text;
  const Json facts = Json::parse(r.text, "doctor");
  EXPECT_GT(facts.at("exchange_64_mib_ms").as_number(), 0.0);
  ASSERT_EQ(facts.at("each_rank").items().size(), 2u);
  for (const Json& one : facts.at("each_rank").items()) {
    const std::int64_t cores = one.at("cores").as_integer(), n = one.at("threads").as_integer();
    // A rank that is bound has its cores for itself.
    EXPECT_TRUE(n == cores || n == std::max<std::int64_t>(1, cores / 2)) << n << " of " << cores;
  }
}

TEST_P(Ranks, the_environment_may_say_how_many_threads) {
  const Launched r = run(2, {"doctor"}, {"RETORT_NUM_THREADS=3"});
  EXPECT_EQ(count(r.text, ", 3 threads\n"), 2) << r.text;
}

// The other rank waits for it in MPI's start, which MPICH's launcher would let it do for ever.
TEST_P(Ranks, a_failure_of_one_rank_is_told_by_that_rank_and_ends_all) {
  const std::string script = join(
      "[ \"${OMPI_COMM_WORLD_RANK:-$PMI_RANK}\" = 0 ] || export RETORT_MPI_LIBRARY=/no/such.so; "
      "exec ",
      RETORT_KDTRAIN, " doctor");
  const Launched r =
      launch(GetParam(), 2, {"/bin/sh", "-c", script}, {"RETORT_MPI_START_SECONDS=10"});
  EXPECT_NE(r.status, 0) << r.text;
  EXPECT_THAT(r.text, ::testing::ContainsRegex("kdtrain: rank 1 \\(.*, pid [0-9]+\\): "
                                               "error\\[RT0802\\]: launched as 2 ranks"));
  EXPECT_EQ(count(r.text, "version "), 0) << r.text;
  EXPECT_LE(count(r.text, "kdtrain: error[RT0799]: MPI has not started after 10 s"), 1) << r.text;
}

TEST_P(Ranks, doctor_says_what_to_launch_with) {
  for (const MpiAtHand& other : known_mpis()) {
    if (other.family == GetParam().family) continue;
    if (other.plugin.empty()) GTEST_SKIP() << "no " << other.family << " here";
    const Launched r = run(2, {"doctor"}, {"RETORT_MPI_LIBRARY=" + other.plugin});
    EXPECT_NE(r.status, 0) << r.text;  // maybe that of a rank which the launcher ended
    EXPECT_EQ(count(r.text, "kdtrain: error[RT0221]: launched as 2 ranks, but "), 1) << r.text;
    EXPECT_EQ(count(r.text, "use mpirun." + other.family), 1) << r.text;
  }
  const Launched none = run(2, {"doctor"}, {"RETORT_MPI_LIBRARY=/no/such.so"});
  EXPECT_NE(none.status, 0) << none.text;
  EXPECT_EQ(count(none.text, "kdtrain: error[RT0802]: "), 1) << none.text;
}

// As rank 0 of two, in this process.
TEST(RefusedRanks, are_those_of_every_command_that_writes) {
  ::setenv("PMI_SIZE", "2", 1);
  ::setenv("PMI_RANK", "0", 1);
  ::setenv("RETORT_MPI_LIBRARY", "/no/such.so", 1);
  const auto refused = [](const std::string& command, const std::string& logits = "") {
    CommandLine line;
    line.command = command;
    line.logits = logits;
    ::testing::internal::CaptureStderr();
    const int status = refuse_ranks(line);
    return std::pair(status, ::testing::internal::GetCapturedStderr());
  };
  for (const char* command : {"score", "report", "cp"}) {
    const auto [status, text] = refused(command);
    EXPECT_EQ(status, 2) << command;
    EXPECT_THAT(text, HasSubstr("error[RT0220]: `kdtrain " + std::string(command) + "` works"));
  }
  EXPECT_EQ(refused("eval", "file").first, 2);
  for (const char* command :
       {"run", "eval", "plan", "validate", "ls", "schema", "doctor", "selftest"})
    EXPECT_EQ(refused(command), (std::pair<int, std::string>(-1, ""))) << command;
  ::setenv("PMI_SIZE", "1", 1);
  EXPECT_EQ(refused("score").first, -1);
  for (const char* name : {"PMI_SIZE", "PMI_RANK", "RETORT_MPI_LIBRARY"}) ::unsetenv(name);
}

TEST(RankErrors, have_their_codes) {
  EXPECT_STREQ(
      error_row(ErrorCode::kUsage, "rank 3 (b) has other training data: 8c1e instead of f3a1").code,
      "RT0222");
}

}  // namespace
}  // namespace retort::tools
