// What pulse_test.cpp starts under a launcher: steps with work and an exchange; at step 5 one rank goes
// wrong.   pulse_program MODE RANK TIMEOUT
//   hang   the rank stands still, and says that it works
//   stop   SIGSTOP
//   die    SIGKILL
//   slow   it works for twice the timeout, and gets on
//   sleep  all ranks are stopped for longer than the timeout, and go on, as when a laptop is shut
//   throw  it meets an error of its own
//   ask    it is asked to stop: all stop after the same step
//   calls  it makes another call than the others
//   skip   it leaves out an agreement
//   skip_last   it leaves out the last one
//   embed  like hang, in a program without a handler
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "engine/distributed/agreement.h"
#include "engine/distributed/leave.h"
#include "engine/ops/elementwise.h"
#include "kernels/common/check.h"
#include "tests/support/ranks_log.h"

namespace {

using namespace retort;

constexpr std::int64_t kSteps = 12, kFaulty = 5;

void go_wrong(const std::string& mode, double timeout) {
  if (mode == "hang" || mode == "embed")
    for (;;) pause();
  if (mode == "stop") raise(SIGSTOP);
  if (mode == "die") raise(SIGKILL);
  if (mode == "throw") fail(ErrorCode::kIo, "the disk is full");
  if (mode == "slow") {
    const Tensor x = Tensor::full({4, 4}, 2.0);
    for (int i = 0; i < 40; ++i) {  // ops that take long
      std::this_thread::sleep_for(std::chrono::duration<double>(timeout / 20));
      static_cast<void>(add(x, x));
    }
  }
}

// SIGSTOP to this process, and SIGCONT from a child.
void sleep_together(double seconds) {
  const pid_t pid = getpid(), child = fork();
  if (child == 0) {
    usleep(static_cast<useconds_t>(seconds * 1e6));
    kill(pid, SIGCONT);
    _exit(0);
  }
  raise(SIGSTOP);
  waitpid(child, nullptr, 0);
}

int run(const std::string& mode, int bad, double timeout) {
  Communicator& ranks = Communicator::start();
  Pulse::Options options{timeout, {}};
  if (mode != "embed")
    options.on_loss = [&](const PeerLoss& loss) {
      if (loss.teller) test::say("lost: " + loss.sentence(ranks));
      leave_together(ranks, loss);
    };
  Pulse pulse(ranks, options);
  Agreement agreement(ranks);
  std::int64_t signal = 0, step = 0;
  for (; step < kSteps; ++step) {
    Pulse::set_step(step);
    if (ranks.rank() == bad && step == kFaulty) {
      go_wrong(mode, timeout);
      if (mode == "ask") signal = SIGTERM;
      if (mode == "calls") ranks.transfer({});
    }
    if (mode == "sleep" && step == kFaulty) sleep_together(timeout + 1);
    std::vector<std::int64_t> all(static_cast<std::size_t>(ranks.size()));
    ranks.gather(&step, all.data(), sizeof step);
    if (agreement.begun() && agreement.finish().signal != 0) break;
    const std::int64_t left_out = mode == "skip" ? kFaulty : mode == "skip_last" ? kSteps - 1 : -1;
    if (ranks.rank() != bad || step != left_out) agreement.begin({signal, 0, step});
  }
  agreement.end();
  test::say(join("rank ", ranks.rank(), " ends after step ", step));
  pulse.stop();
  ranks.finish();
  return 0;
}

}  // namespace

int main(int, char** argv) {
  try {
    return run(argv[1], std::atoi(argv[2]), std::atof(argv[3]));
  } catch (const Error& error) {
    test::say(join("error of rank ", Communicator::world().rank(), ": ", error.what()));
    return static_cast<int>(error.code());
  }
}
