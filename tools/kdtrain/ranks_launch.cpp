#include "tools/kdtrain/ranks_launch.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

#include "engine/distributed/launcher.h"
#include "engine/io/file.h"
#include "engine/io/json.h"
#include "nn/options.h"
#include "tools/kdtrain/rank_status.h"

namespace retort::tools {
namespace {

constexpr const char* kStarted = "RETORT_STARTED_BY_RANKS";  // set for those that were started

std::atomic<pid_t> g_launcher{0};
std::atomic<int> g_asked{0};

void on_signal(int) {
  const pid_t launcher = g_launcher;
  if (launcher > 0) ::kill(launcher, ++g_asked == 1 ? SIGUSR1 : SIGTERM);
}

std::string find_launcher() {
  std::string tried;
  if (const char* const named = std::getenv("RETORT_MPIRUN"); named != nullptr && *named != '\0')
    return named;
  for (const std::string& file : nn::split(RETORT_MPIRUNS, ':')) {  // of the build
    if (file.empty()) continue;
    if (::access(file.c_str(), X_OK) == 0) return file;
    tried += join(tried.empty() ? " (" : ", ", file);
  }
  fail(ErrorCode::kDevice, "--ranks: there is no mpirun of an MPI that Retort was built with",
       tried, tried.empty() ? "" : ")", "; RETORT_MPIRUN=FILE names one");
}

std::string status_file(const CommandLine& line) {
  if (!line.out.empty()) return line.out + "/" + kStatusFile;
  const auto recipe = checked_recipe(line, false);
  return recipe ? "runs/" + recipe->name + "/" + kStatusFile : "";
}

// What tells one writing of a file from another.
std::pair<ino_t, std::int64_t> version_of(const std::string& file) {
  struct stat status {};
  if (file.empty() || ::stat(file.c_str(), &status) != 0) return {0, 0};
  return {status.st_ino, status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec};
}

// What rank 0 said of this sitting; the launcher's own status is not to be trusted.
int status_of(const std::string& file, int of_launcher) {
  try {
    constexpr std::uint64_t kMostBytes = 1 << 20;
    Json json = Json::parse(read_file(file, kMostBytes), file);
    if (json.at("state").as_string() != "running")
      return static_cast<int>(json.at("code").as_integer());
    // Nobody was left to write it, and which rank it was only the launcher's own words say.
    json.set("rank", std::int64_t{-1})
        .set("host", "")
        .set("state", "lost")
        .set("code", static_cast<std::int64_t>(ErrorCode::kPeer));
    write_file_atomically(
        file, json.set("message", join("the launcher ended all ranks, with ", of_launcher)).dump() +
                  "\n");
    return static_cast<int>(ErrorCode::kPeer);
  } catch (const std::exception&) {
    return of_launcher;
  }
}

[[noreturn]] void become_launcher(const std::string& launcher, const std::vector<char*>& words,
                                  pid_t parent) {
  ::setpgid(0, 0);  // Ctrl-C is for the parent
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(127);
  ::setenv(kStarted, "1", 1);
  ::execv(launcher.c_str(), words.data());
  ::_exit(127);
}

}  // namespace

int launch_ranks(const CommandLine& line, int argc, char** argv) {
  if (line.ranks == 0 || line.command != "run") return -1;
  const Launch launch = find_launch();
  if (!launch.variable.empty() || std::getenv(kStarted) != nullptr) {
    RETORT_CHECK(launch.size == line.ranks, "--ranks ", line.ranks, ": ", launch.size,
                 launch.size == 1 ? " rank was" : " ranks were",
                 " launched already: leave it out under mpirun or srun");
    return -1;
  }
  if (line.ranks == 1) return -1;
  const std::string launcher = find_launcher(), count = std::to_string(line.ranks);
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  std::vector<std::string> all{launcher, "-np", count, self};
  all.insert(all.end(), argv + 1, argv + argc);
  std::vector<char*> words;
  for (std::string& word : all) words.push_back(word.data());
  words.push_back(nullptr);

  const std::string file = status_file(line);
  const auto before = version_of(file);
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigset_t asked, mask;
  sigemptyset(&asked);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1}) sigaddset(&asked, signal);
  // One that comes before there is anybody to tell waits.
  ::sigprocmask(SIG_BLOCK, &asked, &mask);
  const pid_t parent = ::getpid(), child = ::fork();
  RETORT_CHECK_AS(kIo, child >= 0, "--ranks: cannot start ", launcher, ": ", std::strerror(errno));
  if (child == 0) {
    ::sigprocmask(SIG_SETMASK, &mask, nullptr);
    become_launcher(launcher, words, parent);
  }
  g_launcher = child;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1})
    ::sigaction(signal, &action, nullptr);
  ::sigprocmask(SIG_SETMASK, &mask, nullptr);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  const int of_launcher = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return version_of(file) == before ? of_launcher : status_of(file, of_launcher);
}

}  // namespace retort::tools
