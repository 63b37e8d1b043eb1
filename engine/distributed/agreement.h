// One word that all ranks agree on while they work: who wants to stop, who met an error, and
// whether all make the same calls.
#pragma once
#include <array>
#include <cstdint>
#include <memory>

#include "engine/distributed/communicator.h"

namespace retort {

/// begin() after a step and finish() before the next one ends: the word travels while the ranks
/// work. So a signal to any one rank stops all of them after the same step. At size 1 it is what was
/// said.
class Agreement {
 public:
  struct Word {
    std::int64_t signal = 0;  // after finish(): the largest of all ranks
    std::int64_t error = 0;   // an ErrorCode; likewise
    std::int64_t step = 0;    // the smallest
  };

  explicit Agreement(Communicator& ranks);
  ~Agreement();
  Agreement(const Agreement&) = delete;
  Agreement& operator=(const Agreement&) = delete;

  /// Collective; one word at a time.
  void begin(const Word& mine);
  bool begun() const { return begun_; }
  /// Waits for the word. Throws Error(kPeer) on all ranks if they have made different calls of
  /// Communicator so far, naming the last one of two of them.
  Word finish();

 private:
  struct Flight;  // what MPI reads and writes
  Communicator& ranks_;
  std::unique_ptr<Flight> flight_;
  bool begun_ = false;
};

}  // namespace retort
