#include "tools/kdtrain/ranks.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/distributed/handshake.h"
#include "engine/distributed/launcher.h"
#include "engine/distributed/leave.h"
#include "engine/distributed/pulse.h"
#include "kernels/common/parallel.h"
#include "tools/kdtrain/error_codes.h"

namespace retort::tools {
namespace {

char g_prefix[128] = "";

bool writes(const CommandLine& line) {
  for (const char* command : {"sweep", "score", "report", "cp"})
    if (line.command == command) return true;
  return line.command == "eval" && !line.logits.empty();
}

void say_on_rank_0(int rank, ErrorCode code, const std::string& what) {
  if (rank != 0) return;
  std::fflush(stdout);
  std::fprintf(stderr, "kdtrain: %s%s\n", error_label(code, what).c_str(), what.c_str());
}

// Where ranks cannot wait for each other, those that do not print let rank 0 go first: it ends all.
void let_rank_0_go_first(int rank) {
  if (rank != 0) std::this_thread::sleep_for(std::chrono::seconds(2));
}

// MPI's start waits for all ranks, for ever for one that failed before, and cannot be interrupted: if it
// takes too long, `late` is called, which ends this process.
class StartWatch {
 public:
  StartWatch(int seconds, std::function<void()> late)
      : seconds_(seconds), late_(std::move(late)), thread_([this] { watch(); }) {}
  ~StartWatch() {
    {
      const std::lock_guard lock(mutex_);
      started_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

 private:
  void watch() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::seconds(seconds_), [&] { return started_; })) late_();
  }

  const int seconds_;
  const std::function<void()> late_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool started_ = false;
  std::thread thread_;  // last: it uses the others
};

int start_patience_s() {
  const char* const text = std::getenv("RETORT_MPI_START_SECONDS");
  const int seconds = text != nullptr ? std::atoi(text) : 0;
  return seconds > 0 ? seconds : 60;
}

[[noreturn]] void leave_unstarted() {
  const std::string what = join("MPI has not started after ", start_patience_s(),
                                " s: another rank failed before, or ranks cannot reach each other "
                                "(RETORT_MPI_START_SECONDS)");
  std::fprintf(stderr, "kdtrain: %s%s%s\n", g_prefix, error_label(ErrorCode::kPeer, what).c_str(),
               what.c_str());
  _exit(static_cast<int>(ErrorCode::kPeer));
}

// Who says what is said from here on.
void name_rank(int rank) {
  const RankInfo& me = Communicator::world().of(0);
  if (rank != 0)
    std::snprintf(g_prefix, sizeof g_prefix, "rank %d (%.64s, pid %lld): ", rank, me.host.c_str(),
                  static_cast<long long>(me.pid));
}

void share_cores(const CommandLine& line, const Communicator& ranks) {
  if (!threads_are_given(line)) set_thread_count(ranks.of(ranks.rank()).threads);
}

// Tells of a lost rank, and ends this process.
[[noreturn]] void leave_lost(Communicator& ranks, const PeerLoss& loss) {
  if (loss.teller) {
    const std::string what = loss.sentence(ranks);
    std::fprintf(stderr, "kdtrain: %s%s%s\n", g_prefix, error_label(ErrorCode::kPeer, what).c_str(),
                 what.c_str());
  }
  leave_together(ranks, loss);
}

std::unique_ptr<Pulse> watch(Communicator& ranks) {
  return std::make_unique<Pulse>(
      ranks, Pulse::Options{.timeout_s = peer_patience_s(),
                            .on_loss = [&](const PeerLoss& loss) { leave_lost(ranks, loss); }});
}

// The first thing that all ranks do, whatever their commands: are these the same, and the programs?
// "" if they are; then all go on, watched. Else all end.
std::string first_difference(const CommandLine& line, Communicator& ranks,
                             std::unique_ptr<Pulse>* pulse) {
  *pulse = watch(ranks);
  try {
    handshake_of_build().add("version", version_text()).add("command", line.command).compare(ranks);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kUsage) throw;
    (*pulse)->stop();
    return error.what();
  }
  return "";
}

// One exchange. All of an array's elements are the rank that it belongs to.
void exchange(Communicator& ranks, std::vector<std::int32_t>& array,
              std::vector<std::int32_t>& inbox) {
  using Transfer = Communicator::Transfer;
  const auto count = static_cast<std::size_t>(ranks.size());
  const auto me = static_cast<std::size_t>(ranks.rank());
  const auto first = [&](std::size_t rank) { return array.size() * rank / count; };
  const auto bytes = [&](std::size_t rank) { return (first(rank + 1) - first(rank)) * 4; };
  std::vector<Transfer> out, back;
  for (std::size_t peer = 0, n = 0; peer < count; ++peer) {
    if (peer == me) continue;
    const int p = static_cast<int>(peer);
    out.push_back({array.data() + first(peer), bytes(peer), p, true});
    out.push_back({inbox.data() + n++ * (bytes(me) / 4), bytes(me), p, false});
    back.push_back({array.data() + first(me), bytes(me), p, true});
    back.push_back({array.data() + first(peer), bytes(peer), p, false});
  }
  ranks.transfer(out);
  ranks.transfer(back);
}

}  // namespace

int refuse_ranks(const CommandLine& line) {
  if (!writes(line)) return -1;
  const Launch launch = find_launch();
  if (launch.size == 1) return -1;
  say_on_rank_0(launch.rank, ErrorCode::kUsage,
                join("`kdtrain ", line.command, "` works with one rank so far, and ", launch.size,
                     " were launched (", launch.variable, "): start it without mpirun or srun"));
  try {
    const StartWatch watch(start_patience_s(), [] { _exit(static_cast<int>(ErrorCode::kUsage)); });
    Communicator& ranks = Communicator::start();
    std::unique_ptr<Pulse> pulse;
    const std::string what = first_difference(line, ranks, &pulse);
    if (what.empty()) pulse->stop();
    ranks.finish();
  } catch (const Error&) {  // that ranks cannot meet changes nothing
    let_rank_0_go_first(launch.rank);
  }
  return static_cast<int>(ErrorCode::kUsage);
}

int compare_commands(const CommandLine& line) {
  const Launch launch = find_launch();
  if (launch.size == 1 || line.command == "run" || line.command == "doctor") return -1;
  try {
    name_rank(launch.rank);
    const StartWatch watch(start_patience_s() + (launch.rank == 0 ? 0 : 2), leave_unstarted);
    Communicator& ranks = Communicator::start();
    std::unique_ptr<Pulse> pulse;
    const std::string what = first_difference(line, ranks, &pulse);
    if (what.empty()) pulse->stop();
    ranks.finish();
    g_prefix[0] = '\0';  // each a program of its own, that says all itself
    if (what.empty()) return -1;
    say_on_rank_0(launch.rank, ErrorCode::kUsage, what);
    return static_cast<int>(ErrorCode::kUsage);
  } catch (const Error& error) {
    g_prefix[0] = '\0';
    if (error.code() == ErrorCode::kPeer) throw;
    return -1;
  }
}

bool launched_together() { return find_launch().size > 1; }

int with_ranks(const CommandLine& line, const std::function<int(Communicator&)>& body,
               bool watched) {
  const int rank = find_launch().rank;
  name_rank(rank);
  Communicator* ranks = nullptr;
  try {
    const StartWatch watch(start_patience_s() + (rank == 0 ? 0 : 2), leave_unstarted);
    ranks = &Communicator::start();
  } catch (const Error& error) {
    // The environment and the launcher are the same for all; a plug-in may be missing on one node.
    if (error.code() == ErrorCode::kUsage) say_on_rank_0(rank, error.code(), error.what());
    let_rank_0_go_first(rank);
    if (error.code() != ErrorCode::kUsage) throw;
    return static_cast<int>(error.code());
  }
  std::unique_ptr<Pulse> pulse;
  if (const std::string what = first_difference(line, *ranks, &pulse); !what.empty()) {
    say_on_rank_0(ranks->rank(), ErrorCode::kUsage, what);
    ranks->finish();
    return static_cast<int>(ErrorCode::kUsage);
  }
  if (!watched) {
    pulse->stop();
    pulse.reset();
  }
  share_cores(line, *ranks);
  const int status = body(*ranks);
  std::fflush(stdout);
  if (pulse != nullptr) pulse->stop();
  ranks->finish();
  return status;
}

bool threads_are_given(const CommandLine& line) {
  if (line.threads > 0) return true;
  for (const char* name : {"RETORT_NUM_THREADS", "OMP_NUM_THREADS"})
    if (const char* text = std::getenv(name); text != nullptr && std::atoi(text) >= 1) return true;
  return false;
}

double peer_patience_s() {
  const char* const text = std::getenv("RETORT_PEER_TIMEOUT");
  const double seconds = text != nullptr ? std::atof(text) : 0;
  return seconds >= 1 ? seconds : 4;
}

double exchange_ms(Communicator& ranks, std::size_t bytes) {
  const auto count = static_cast<std::size_t>(ranks.size());
  std::vector<std::int32_t> array(bytes / 4), inbox(array.size() + count);
  std::vector<double> times;
  for (int round = 0; round < 4; ++round) {
    std::fill(array.begin(), array.end(), ranks.rank());
    std::int64_t here = 0;
    ranks.agree({&here, 1});
    const auto begin = std::chrono::steady_clock::now();
    exchange(ranks, array, inbox);
    const auto took = std::chrono::steady_clock::now() - begin;
    std::int64_t ns = std::chrono::duration_cast<std::chrono::nanoseconds>(took).count();
    ranks.agree({&ns, 1});
    if (round > 0) times.push_back(static_cast<double>(ns) * 1e-6);  // the first one connects
    for (std::size_t i = 0; i < array.size(); ++i)
      if (const auto owner = ((i + 1) * count - 1) / array.size();
          array[i] != static_cast<std::int32_t>(owner))
        fail(ErrorCode::kPeer, "[exchange] element ", i, " should come from rank ", owner,
             ", and came from rank ", array[i]);
  }
  std::sort(times.begin(), times.end());
  return times[1];
}

const char* rank_prefix() noexcept { return g_prefix; }

}  // namespace retort::tools
