// One word that all ranks agree on while they work: who wants to stop, who met an error, and
// whether all make the same calls.
#pragma once
#include <cstdint>
#include <memory>

#include "engine/distributed/communicator.h"

namespace retort {

namespace detail {
/// Moves on the word that is under way, for those who wait for something else. Throws Error(kPeer)
/// once it has found ranks out of step.
void look_at_agreement();
}  // namespace detail

/// begin() after a step and finish() before the next one ends: the word travels while the ranks
/// work. So a signal to any one rank stops all of them after the same step. At size 1 it is what was
/// said.
///
/// Note [Words of all ranks]
///   A word goes up a binary tree of ranks to rank 0 and down again, in messages that no other call
///   can take for its own. So words meet words: where a rank has left one out, or made another call
///   than the others, the hashes of the calls so far differ in the next word that it does begin. A
///   rank that waits for anything meanwhile passes on what it has (wait_watched), and all of them,
///   wherever they are, throw the same sentence. end() begins a last word: of one that was left out
///   at the very end.
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

  /// Collective; one word at a time in a process.
  void begin(const Word& mine);
  bool begun() const { return begun_; }
  /// Waits for the word. Throws Error(kPeer) on all ranks if they have made different calls of
  /// Communicator or Agreement so far, naming the ranks that differ and what each called.
  Word finish();
  /// The orderly end: a last word, finished. Behind it begin() is not called any more.
  void end();

  /// Of a word that found ranks out of step; "": none did.
  const std::string& difference() const { return difference_; }

 private:
  friend void detail::look_at_agreement();
  struct Flight;
  void advance();

  Communicator& ranks_;
  std::unique_ptr<Flight> flight_;
  std::string difference_;
  bool begun_ = false;
};

}  // namespace retort
