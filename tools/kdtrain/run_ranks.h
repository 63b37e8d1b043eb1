// What the ranks of one run tell each other: errors, signals, files of the run folder. With one rank
// all of it is nothing.
//
// Note [Ranks of a run]
//   Every rank goes the same way through the recipe and decides the same, because what it decides by
//   is the same everywhere: the plan, gathered numbers, evaluations of equal weights. Rank 0 alone
//   has the run folder. What it writes between two steps is checked at the next word of all ranks
//   (agree()); what must be on the disk before anybody goes on, at once (on_writer()). What a rank
//   reads of the run folder rank 0 hands out, so that only data and given weights have to be
//   readable everywhere.
//   An error that all ranks know is a SharedError: they throw it at the same call, rank 0 tells it,
//   and all end in order. Any other one is a single rank's: it tells it, the pulse tells the others
//   that it left, and nobody waits for it.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/distributed/agreement.h"
#include "engine/distributed/handshake.h"
#include "engine/distributed/pulse.h"
#include "kernels/common/check.h"

namespace retort::tools {

/// Thrown by all ranks at the same call.
class SharedError : public Error {
 public:
  SharedError(ErrorCode code, const std::string& message, int rank)
      : Error(code, message), rank_(rank) {}
  int rank() const { return rank_; }  // whose it is

 private:
  int rank_;
};

class RunRanks {
 public:
  explicit RunRanks(Communicator& ranks = Communicator::world());
  ~RunRanks();
  RunRanks(const RunRanks&) = delete;
  RunRanks& operator=(const RunRanks&) = delete;

  int size() const { return ranks_.size(); }
  bool several() const { return ranks_.size() > 1; }
  bool writes() const { return ranks_.rank() == 0; }
  /// Null with one rank.
  Communicator* shared() const { return several() ? &ranks_ : nullptr; }

  /// From here on every rank is watched (pulse.h), for RETORT_PEER_TIMEOUT seconds, else 4. A lost
  /// one ends all with 7.
  void watch();
  /// The orderly end of that.
  void end();
  /// Behind an error: does not return where it came of a lost rank, of which the pulse's thread tells
  /// and ends this process.
  void yield_to_loss();

  /// An agreement found that ranks made different calls: all of them know, wherever they were.
  bool out_of_step() const { return !agreement_.difference().empty(); }

  // -- collective -----------------------------------------------------------------------------------
  /// Runs body on all ranks. An Error of any of them is everybody's. body makes no collective calls.
  void together(const std::function<void()>& body);
  /// Runs body on rank 0 alone; its Error is everybody's.
  void on_writer(const std::function<void()>& body);
  /// The same, and all get what it returned.
  std::string from_writer(const std::function<std::string()>& body);
  /// What body works out, on rank 0 alone, for all: what ranks would only do twice. Its Error is
  /// everybody's.
  std::string once(const std::function<std::string()>& body);
  /// Error(kUsage) of all ranks where one has other values.
  void compare(const Handshake& handshake);
  /// Error(kPeer) naming a rank that has other weights than rank 0.
  void compare_weights(const std::string& hash, std::int64_t step);
  /// Whether a signal has reached any rank by now; then stop_requested() says so on all of them.
  /// Throws what write() met.
  bool stop_agreed();

  // -- not collective -------------------------------------------------------------------------------
  /// Runs body on rank 0 alone. With several ranks its Error is kept, nothing more is written, and
  /// the next collective call above throws it on all of them.
  void write(const std::function<void()>& body);
  /// Tells the others about this step, of which the next stop_agreed() hears. Takes no time.
  void begin_word(std::int64_t step);
  /// For the sentence about a lost rank, and status.json.
  void note_checkpoint(const std::string& title, std::int64_t step);

  // -- files ----------------------------------------------------------------------------------------
  /// What stands for the run folder on a rank that has none.
  std::string mirror() const;
  /// Until it dies, files of the run folder lie in the mirrors, under the same names. Collective.
  class HandedOut {
   public:
    explicit HandedOut(std::string mirror) : mirror_(std::move(mirror)) {}
    ~HandedOut();
    HandedOut(HandedOut&& other) noexcept : mirror_(std::exchange(other.mirror_, "")) {}
    HandedOut(const HandedOut&) = delete;
    HandedOut& operator=(const HandedOut&) = delete;

   private:
    std::string mirror_;  // "": there is none
  };
  /// names: paths within `folder`, asked of rank 0 alone. take: called on the other ranks when they
  /// are there; an Error of it is everybody's.
  HandedOut hand_out(
      const std::string& folder, const std::function<std::vector<std::string>()>& names,
      const std::function<void()>& take = [] {});

  // -- status.json ----------------------------------------------------------------------------------
  /// Where it is: in the run folder. Nothing is written before, nor with one rank.
  void set_status_folder(const std::string& folder);
  /// Of rank 0: "running", "done", "stopped", "failed", "lost". rank: whom it is about.
  void write_status(const char* state, int code, int rank, const std::string& message) noexcept;

 private:
  struct Fault {
    std::int64_t code = 0;  // of Error; 0: none
    std::string text;
  };
  static Fault fault_of(const std::function<void()>& body);
  void settle(const Fault& mine);
  void share_fault(Fault fault);  // of rank 0
  void lost(const PeerLoss& loss);

  Communicator& ranks_;
  Agreement agreement_;
  std::unique_ptr<Pulse> pulse_;
  Fault pending_;  // of write()
  std::int64_t step_ = 0;
  std::mutex mutex_;
  std::string checkpoint_, status_folder_;  // guarded by mutex_: the pulse's thread reads them
};

/// "2 ranks x 1 thread on 1 node, 8 slices of 16 rows, Open MPI 4.1.4".
std::string ranks_text(const Communicator& ranks, int threads, std::int64_t slices,
                       std::int64_t batch);

}  // namespace retort::tools
