// What a plug-in for MPI offers: ten functions. No type of MPI is in it, so libretort needs none,
// and one libretort works with every MPI that has a plug-in.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"

namespace retort {

/// An MPI_Request, whatever the library makes of it.
struct MpiRequest {
  std::uint64_t handle = 0;
};

struct MpiWorld {
  int rank = 0, size = 1;
  int place = 0, ranks_on_node = 1;  // among the ranks that share memory
  int leader = 0;                    // the lowest rank of the node
  bool serialized = false;           // several threads may call, one at a time
  bool open_mpi = false;             // else of MPICH's family
  char library[64] = {};             // "Open MPI 4.1.4"
};

/// Every function returns at once but `start`, `finish` and `abort`: what takes time is a request,
/// and `test` says when it is done. Called by one thread at a time. None throws; a failure of MPI is
/// kPeer with MPI's own text. Sizes are of one message: at most 2^31 - 1 bytes.
struct MpiTable {
  /// Initialises MPI unless the program has; collective.
  Status (*start)(MpiWorld* world) noexcept = nullptr;
  Status (*send)(const void* data, int bytes, int peer, int tag,
                 MpiRequest* request) noexcept = nullptr;
  Status (*receive)(void* data, int bytes, int peer, int tag,
                    MpiRequest* request) noexcept = nullptr;
  /// all: size times `bytes`, by rank.
  Status (*gather)(const void* mine, void* all, int bytes, MpiRequest* request) noexcept = nullptr;
  Status (*broadcast)(void* data, int bytes, int root, MpiRequest* request) noexcept = nullptr;
  /// most[i]: the largest of all ranks' mine[i].
  Status (*maximum)(const std::int64_t* mine, std::int64_t* most, int count,
                    MpiRequest* request) noexcept = nullptr;
  /// bytes: of a receive that is done, how many came.
  Status (*test)(MpiRequest* request, bool* done, int* bytes) noexcept = nullptr;
  /// Gives up a send or a receive.
  Status (*drop)(MpiRequest* request) noexcept = nullptr;
  /// Finalises MPI if `start` initialised it; collective.
  Status (*finish)() noexcept = nullptr;
  /// Ends all ranks with this status.
  Status (*abort)(int status) noexcept = nullptr;
};

/// What the plug-in exports as `extern "C" const MpiPluginInfo* retort_mpi_plugin()`.
struct MpiPluginInfo {
  const char* abi_hash;  // RETORT_MPI_ABI_HASH: of this header and what it includes
  MpiTable table;
};
using MpiPluginEntry = const MpiPluginInfo* (*)();

}  // namespace retort
