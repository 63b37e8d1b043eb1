// The loaded plug-in for MPI, behind one lock: what `engine/distributed/` says to MPI goes through
// here. Not for other rooms.
#pragma once
#include <memory>
#include <mutex>
#include <string>

#include "engine/distributed/mpi/mpi_plugin.h"

namespace retort {

/// Opens a plug-in and fills its table. "" if all went well, else one sentence: "no MPI plug-in:
/// ...". Nothing of MPI runs yet.
std::string open_mpi_plugin(const std::string& path, MpiTable* table);

/// MPI is asked for MPI_THREAD_SERIALIZED: one thread at a time, and since no function but start()
/// and finish() waits, the lock is never held for long.
class MpiLink {
 public:
  /// Messages of different kinds never meet.
  enum Tag : int { kTransfer = 1, kPulse = 2, kAgreement = 3 };

  /// Loads the plug-in and initialises MPI; collective. Throws Error(kDevice) without a plug-in that
  /// can be used, naming it.
  explicit MpiLink(const std::string& path);

  const MpiWorld& world() const { return world_; }

  void send(const void* data, int bytes, int peer, Tag tag, MpiRequest* request);
  void receive(void* data, int bytes, int peer, Tag tag, MpiRequest* request);
  void gather(const void* mine, void* all, int bytes, MpiRequest* request);
  void broadcast(void* data, int bytes, int root, MpiRequest* request);
  void maximum(const std::int64_t* mine, std::int64_t* most, int count, MpiRequest* request);
  /// True if it is done; then `bytes`, unless null, says how many a receive got.
  bool test(MpiRequest* request, int* bytes = nullptr);
  void drop(MpiRequest* request) noexcept;
  void finish();
  void abort(int status) noexcept;

 private:
  MpiTable table_;
  MpiWorld world_;
  std::mutex mutex_;
};

}  // namespace retort
