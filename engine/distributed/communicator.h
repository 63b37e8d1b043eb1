// The processes that train together. MPI moves the bytes; nothing here adds numbers, so results
// cannot depend on the library.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace retort {

class MpiLink;

/// Where a rank runs.
struct RankInfo {
  std::string host;
  std::int64_t pid = 0;
  int node = 0;     // ranks of one node share memory; nodes are numbered by their lowest rank
  int place = 0;    // rank within the node
  int cores = 0;    // that it may use
  int threads = 0;  // its share of them (cores.h)
};

/// This process among those that were launched together. One rank is one process.
///
///   Communicator& ranks = Communicator::start();
///   ranks.gather(&mine, all.data(), sizeof mine);
///   ranks.finish();
///
/// Every call but the simple questions is collective: all ranks make the same calls in the same
/// order, from one thread each. At size 1 nothing is loaded and nothing happens: a gather copies,
/// and any threads may call (jobs side by side do).
/// All memory is the host's, and may be used again when the call returns; meanwhile the host waits
/// by wait_watched.
/// Errors: a failure of MPI is Error(kPeer) that names the call, and every later call throws it too.
class Communicator {
 public:
  /// Of this process; size 1 until start() finds a launcher.
  static Communicator& world();

  /// Looks for a launcher in the environment (launcher.h). If there are several ranks, loads the
  /// plug-in that belongs to it, RETORT_MPI_LIBRARY or libretort_mpi_<family>.so beside libretort,
  /// initialises MPI unless the program did, and compares MPI's size with the launcher's. Once; later
  /// calls return world().
  /// Throws Error(kUsage) if they differ, saying what to launch with; Error(kDevice) without a
  /// plug-in that can be used.
  static Communicator& start();

  int rank() const { return rank_; }
  int size() const { return size_; }
  int place() const { return of(rank_).place; }
  int node() const { return of(rank_).node; }
  int nodes() const { return nodes_; }
  const RankInfo& of(int rank) const { return infos_[static_cast<std::size_t>(rank)]; }
  /// "rank 2 (host)".
  std::string name(int rank) const;
  /// "Open MPI 4.1.4"; "" at size 1.
  const std::string& library() const { return library_; }

  struct Transfer {
    void* data;
    std::size_t bytes;
    int peer;   // another rank
    bool send;  // else receive
  };
  /// One group: returns when all of them are done. What two ranks have for each other is matched in
  /// the order of their lists; sizes must be equal, 0 bytes included. Any size: long ones travel in
  /// pieces. Throws Error(kUsage) for a peer that there is not.
  void transfer(std::span<const Transfer> list);

  /// all: size() times `bytes`, by rank.
  void gather(const void* mine, void* all, std::size_t bytes);
  /// Texts of any length, by rank.
  std::vector<std::string> gather(const std::string& mine);
  /// Everybody gets what `root` has.
  void broadcast(void* data, std::size_t bytes, int root);
  void broadcast(std::string* text, int root);
  /// words[i] := the largest of all ranks' words[i].
  void agree(std::span<std::int64_t> words);

  /// The orderly end: waits until all ranks are here, and finalises MPI unless the program
  /// initialised it. Not after an error: a rank that is gone never comes; leave main() instead, and
  /// the launcher ends the others. Later collective calls throw.
  void finish();

  /// The collective calls so far, agreements (agreement.h) among them: equal on all ranks, or one of
  /// them is about to wait for ever. Of a transfer only that there was one.
  struct Calls {
    std::int64_t hash = 0;
    std::string text;  // since the last agreement began: "gather of 40 bytes x 2, a transfer"
  };
  const Calls& calls() const { return calls_; }
  /// In the collective calls and agreements so far, others' lateness included.
  double seconds() const { return seconds_; }

  /// For engine/distributed/ alone; null at size 1.
  MpiLink* link() const { return link_.get(); }

  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

 private:
  Communicator();
  ~Communicator();
  void introduce();  // fills infos_
  template <class F>
  void guarded(const char* call, F&& f);
  void count(const std::string& call);
  friend class Agreement;  // counts itself

  int rank_ = 0, size_ = 1, nodes_ = 1;
  double seconds_ = 0;
  std::string library_, broken_;
  Calls calls_;
  std::string last_call_;
  int repeated_ = 0;  // how often it was made behind each other
  std::vector<RankInfo> infos_;
  std::unique_ptr<MpiLink> link_;
};

namespace detail {
/// Longest piece of a transfer; 2^30, for tests less. Equal on all ranks.
extern std::size_t piece_bytes;
}  // namespace detail

}  // namespace retort
