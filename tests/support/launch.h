// Programs under the launchers of the MPIs that were found.
#pragma once
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "mpi_at_hand.h"  // generated
#include "tests/support/temporary_folder.h"

namespace retort::test {

struct MpiAtHand {
  std::string family, launcher, plugin, embedder;
  friend void PrintTo(const MpiAtHand& mpi, std::ostream* out) { *out << mpi.family; }
};

/// As the build found them, in a fixed order; launcher "" for one that is not here.
inline std::vector<MpiAtHand> known_mpis() { return RETORT_MPI_AT_HAND; }

struct Launched {
  int status = -1;   // of the launcher; 128 + signal
  std::string text;  // what launcher and ranks printed
  std::string said;  // what ranks said by say(): ranks_log.h
  std::string all() const { return "status " + std::to_string(status) + "\n" + said + text; }
};

/// Runs a program in an environment with these variables more ("NAME=value"); "NAME=" takes one out.
inline Launched run_program(const std::vector<std::string>& command,
                            const std::vector<std::string>& variables = {}) {
  const TemporaryFolder folder;
  const std::string file = folder / "out", log = folder / "log";
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG,
            SIGTERM);  // ranks that wait for ever do not outlive a test that is ended
    const int out = ::open(file.c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
    const int in = ::open("/dev/null", O_RDONLY);
    ::dup2(in, 0);
    ::dup2(out, 1);
    ::dup2(out, 2);
    ::setenv("RETORT_RANKS_LOG", log.c_str(), 1);
    for (const std::string& one : variables) {
      const std::size_t equals = one.find('=');
      const std::string name = one.substr(0, equals), value = one.substr(equals + 1);
      value.empty() ? ::unsetenv(name.c_str()) : ::setenv(name.c_str(), value.c_str(), 1);
    }
    std::vector<char*> argv;
    for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    ::execv(argv[0], argv.data());
    ::_exit(98);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), slurp(file),
          slurp(log)};
}

/// The same on several ranks, as root too, and on fewer cores than ranks.
inline Launched launch(const MpiAtHand& mpi, int ranks, std::vector<std::string> command,
                       std::vector<std::string> variables = {}) {
  std::vector<std::string> all{mpi.launcher};
  if (mpi.family == "openmpi") all.push_back("--oversubscribe");
  all.insert(all.end(), {"-np", std::to_string(ranks)});
  all.insert(all.end(), command.begin(), command.end());
  // Without the last one Open MPI copies from process to process by a call that containers forbid.
  for (const char* one : {"OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                          "OMPI_MCA_btl_vader_single_copy_mechanism=none"})
    variables.emplace_back(one);
  return run_program(all, variables);
}

/// Why this launcher cannot start two programs here that know nothing of MPI (a container may forbid
/// what it needs), or "". Asked once.
inline const std::string& why_not_two(const MpiAtHand& mpi) {
  static std::map<std::string, std::string> known;
  const auto [at, is_new] = known.try_emplace(mpi.family);
  if (!is_new) return at->second;
  const Launched r = launch(mpi, 2, {"/bin/true"});
  if (r.status != 0) at->second = mpi.launcher + " starts nothing here: " + r.all();
  return at->second;
}

/// Tests for each MPI; skipped by name where it is not.
class UnderMpi : public ::testing::TestWithParam<MpiAtHand> {
 protected:
  void SetUp() override {
    if (GetParam().launcher.empty()) GTEST_SKIP() << "no " << GetParam().family << " here";
    if (const std::string& why = why_not_two(GetParam()); !why.empty()) GTEST_SKIP() << why;
  }
};
inline std::string family_of(const ::testing::TestParamInfo<MpiAtHand>& info) {
  return info.param.family;
}

}  // namespace retort::test
