// libretort_mpi_openmpi and libretort_mpi_mpich: this file, built once against each library. The
// only one that includes mpi.h or links MPI.
//
// The C interface alone: the C++ one is gone from MPI 3, and Open MPI's header would ask for
// libmpi_cxx.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include "engine/distributed/mpi/mpi_plugin.h"

#include <mpi.h>

#include <cstdio>
#include <cstring>

#include "retort_mpi_abi_hash.h"

namespace {

using retort::ErrorCode;
using retort::MpiRequest;
using retort::MpiWorld;
using retort::Status;

static_assert(sizeof(MPI_Request) <= sizeof(MpiRequest));

// A communicator of our own, so that nothing meets the messages of a program that uses MPI too.
MPI_Comm g_comm = MPI_COMM_NULL;
bool g_ours = false;  // MPI was initialised here

Status failure(ErrorCode code, const char* text) noexcept {
  Status status;
  status.code = code;
  std::snprintf(status.message, sizeof status.message, "%s", text);
  return status;
}

Status status_of(int error, const char* call) noexcept {
  if (error == MPI_SUCCESS) return {};
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(error, text, &length);
  char line[sizeof Status{}.message];
  std::snprintf(line, sizeof line, "%s: %.200s", call, text);
  for (char* c = line; *c != '\0'; ++c)
    if (*c == '\n') *c = ' ';
  return failure(ErrorCode::kPeer, line);
}

MPI_Request get(const MpiRequest* from) noexcept {
  MPI_Request request;
  std::memcpy(&request, &from->handle, sizeof request);
  return request;
}

Status put(int error, const char* call, MPI_Request request, MpiRequest* to) noexcept {
  to->handle = 0;
  std::memcpy(&to->handle, &request, sizeof request);
  return status_of(error, call);
}

void describe_library(MpiWorld* world) noexcept {
#if defined(OPEN_MPI)
  world->open_mpi = true;
  std::snprintf(world->library, sizeof world->library, "Open MPI %d.%d.%d", OMPI_MAJOR_VERSION,
                OMPI_MINOR_VERSION, OMPI_RELEASE_VERSION);
#else
  std::snprintf(world->library, sizeof world->library, "MPICH %.50s", MPICH_VERSION);
#endif
}

Status describe_node(MpiWorld* world) noexcept {
  MPI_Comm node = MPI_COMM_NULL;
  int error = MPI_Comm_split_type(g_comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  if (error != MPI_SUCCESS) return status_of(error, "MPI_Comm_split_type");
  MPI_Comm_rank(node, &world->place);
  MPI_Comm_size(node, &world->ranks_on_node);
  world->leader = world->rank;
  error = MPI_Bcast(&world->leader, 1, MPI_INT, 0, node);
  MPI_Comm_free(&node);
  return status_of(error, "MPI_Bcast");
}

Status start(MpiWorld* world) noexcept {
  int initialised = 0, finalised = 0, level = MPI_THREAD_SINGLE;
  MPI_Finalized(&finalised);
  if (finalised != 0) return failure(ErrorCode::kUsage, "MPI was finalised before");
  MPI_Initialized(&initialised);
  if (initialised == 0) {
    const int error = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &level);
    if (error != MPI_SUCCESS) return status_of(error, "MPI_Init_thread");
    g_ours = true;
    // MPICH asks the handler of the world about a request that failed, whatever it belonged to.
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
  } else {
    MPI_Query_thread(&level);
  }
  world->serialized = level >= MPI_THREAD_SERIALIZED;
  const int error = MPI_Comm_dup(MPI_COMM_WORLD, &g_comm);
  if (error != MPI_SUCCESS) return status_of(error, "MPI_Comm_dup");
  MPI_Comm_set_errhandler(g_comm, MPI_ERRORS_RETURN);
  MPI_Comm_rank(g_comm, &world->rank);
  MPI_Comm_size(g_comm, &world->size);
  describe_library(world);
  return describe_node(world);
}

Status send(const void* data, int bytes, int peer, int tag, MpiRequest* to) noexcept {
  MPI_Request request = MPI_REQUEST_NULL;
  const int error = MPI_Isend(data, bytes, MPI_BYTE, peer, tag, g_comm, &request);
  return put(error, "MPI_Isend", request, to);
}

Status receive(void* data, int bytes, int peer, int tag, MpiRequest* to) noexcept {
  MPI_Request request = MPI_REQUEST_NULL;
  const int error = MPI_Irecv(data, bytes, MPI_BYTE, peer, tag, g_comm, &request);
  return put(error, "MPI_Irecv", request, to);
}

Status gather(const void* mine, void* all, int bytes, MpiRequest* to) noexcept {
  MPI_Request request = MPI_REQUEST_NULL;
  const int error = MPI_Iallgather(mine, bytes, MPI_BYTE, all, bytes, MPI_BYTE, g_comm, &request);
  return put(error, "MPI_Iallgather", request, to);
}

Status broadcast(void* data, int bytes, int root, MpiRequest* to) noexcept {
  MPI_Request request = MPI_REQUEST_NULL;
  const int error = MPI_Ibcast(data, bytes, MPI_BYTE, root, g_comm, &request);
  return put(error, "MPI_Ibcast", request, to);
}

Status maximum(const std::int64_t* mine, std::int64_t* most, int count, MpiRequest* to) noexcept {
  MPI_Request request = MPI_REQUEST_NULL;
  const int error = MPI_Iallreduce(mine, most, count, MPI_INT64_T, MPI_MAX, g_comm, &request);
  return put(error, "MPI_Iallreduce", request, to);
}

Status test(MpiRequest* from, bool* done, int* bytes) noexcept {
  MPI_Request request = get(from);
  MPI_Status status;
  int flag = 0;
  const int error = MPI_Test(&request, &flag, &status);
  *done = error == MPI_SUCCESS && flag != 0;
  *bytes = 0;
  if (*done) MPI_Get_count(&status, MPI_BYTE, bytes);
  return put(error, "MPI_Test", request, from);  // MPI frees a request that failed
}

Status drop(MpiRequest* from) noexcept {
  MPI_Request request = get(from);
  if (request == MPI_REQUEST_NULL) return {};
  if (const int error = MPI_Cancel(&request); error != MPI_SUCCESS)
    return status_of(error, "MPI_Cancel");
  return put(MPI_Request_free(&request), "MPI_Request_free", request, from);
}

Status finish() noexcept {
  if (g_comm == MPI_COMM_NULL) return {};
  MPI_Comm_free(&g_comm);
  if (!g_ours) return {};
  g_ours = false;
  return status_of(MPI_Finalize(), "MPI_Finalize");
}

Status abort(int code) noexcept { return status_of(MPI_Abort(MPI_COMM_WORLD, code), "MPI_Abort"); }

}  // namespace

extern "C" __attribute__((visibility("default"))) const retort::MpiPluginInfo* retort_mpi_plugin() {
  static const retort::MpiPluginInfo info{
      RETORT_MPI_ABI_HASH,
      {start, send, receive, gather, broadcast, maximum, test, drop, finish, abort}};
  return &info;
}
