// Who is alive, and who moves: how a run with many ranks notices that one is lost, and ends.
//
// Note [Pulse]
//   A thread of every rank tells rank 0 twice a second what its rank does, and rank 0 answers. A
//   rank that was not heard of for the timeout is lost; one whose counter stood still for as long
//   while it says that it works is stuck; waiting for others is neither, however long it takes, and
//   so a slow step is never an alarm: every op, block of a file and chunk of the pool counts (note_progress,
//   engine/runtime/progress.h), and a program's own work that takes longer than the timeout calls
//   it too. Rank 0 itself is missed by the others, half a second later. Nothing else notices: MPI waits for a peer that is stopped or
//   gone for ever.
//   One rank tells what happened: rank 0, or rank 1 if it is rank 0 that is lost. All ranks learn
//   of it, and what happens then is up to the program: see Pulse::Options::on_loss.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/distributed/communicator.h"

namespace retort {

struct PeerLoss {
  enum class Reason : std::int64_t { kNotHeard, kNotMoved, kLeft };
  int rank = 0;
  Reason reason = Reason::kNotHeard;
  double seconds = 0;      // for how long
  std::int64_t step = -1;  // of its last word; -1: none came
  bool teller = false;     // true on the one rank that tells it
  /// "rank 2 (host, pid 77) has not moved for 4.0 s; its last word was of step 20".
  std::string sentence(const Communicator& ranks) const;
};

/// While one lives, this rank is watched. One at a time; all ranks make and end it together.
class Pulse {
 public:
  struct Options {
    double timeout_s = 4;
    /// Called on the pulse's own thread, on every rank that learns of a loss, the lost one too if it
    /// can. A program that must end calls leave_together (leave.h) here. Without one, wait_watched
    /// throws the sentence as Error(kPeer) in the thread that waits.
    std::function<void(const PeerLoss&)> on_loss;
  };
  /// Throws Error(kUsage) if a program initialised MPI without MPI_THREAD_SERIALIZED.
  Pulse(Communicator& ranks, Options options);
  /// Unless stop() was called: tells the others that this rank leaves after an error.
  ~Pulse();
  Pulse(const Pulse&) = delete;
  Pulse& operator=(const Pulse&) = delete;

  /// The orderly end, before Communicator::finish(): waits until all ranks are here.
  void stop();

  /// Where this rank is, for sentences; counts as moving.
  static void set_step(std::int64_t step) noexcept;

 private:
  class Thread;
  std::unique_ptr<Thread> thread_;
};

namespace detail {
/// While one lives, this rank waits for others.
class WaitScope {
 public:
  WaitScope() noexcept;
  ~WaitScope();
  WaitScope(const WaitScope&) = delete;
  WaitScope& operator=(const WaitScope&) = delete;
};
/// Throws Error(kPeer) if a rank was lost.
void give_up_if_lost(const char* what);
}  // namespace detail

}  // namespace retort
