#include "engine/distributed/mpi/mpi_link.h"

#include <cstring>

#include "engine/runtime/plugin_file.h"
#include "retort_mpi_abi_hash.h"

namespace retort {
namespace {

void check_mpi(const Status& status) {
  if (status.code != ErrorCode::kOk) throw Error(status.code, status.message);
}

}  // namespace

std::string open_mpi_plugin(const std::string& path, MpiTable* table) {
  return open_plugin_file(path, "MPI", "retort_mpi_plugin", [&](void* found) {
    const MpiPluginInfo* const info = reinterpret_cast<MpiPluginEntry>(found)();
    if (info == nullptr || info->abi_hash == nullptr)
      return std::string("it is not a Retort plug-in: it does not say how it was built");
    if (std::strncmp(info->abi_hash, RETORT_MPI_ABI_HASH, sizeof RETORT_MPI_ABI_HASH) != 0)
      return std::string(kOtherHeaders);
    if (!is_complete(info->table)) return std::string(kNotWhole);
    *table = info->table;
    return std::string();
  });
}

MpiLink::MpiLink(const std::string& path) {
  if (const std::string problem = open_mpi_plugin(path, &table_); !problem.empty())
    throw Error(ErrorCode::kDevice, problem);
  check_mpi(table_.start(&world_));
}

void MpiLink::send(const void* data, int bytes, int peer, Tag tag, MpiRequest* request) {
  const std::lock_guard lock(mutex_);
  check_mpi(table_.send(data, bytes, peer, tag, request));
}

void MpiLink::receive(void* data, int bytes, int peer, Tag tag, MpiRequest* request) {
  const std::lock_guard lock(mutex_);
  check_mpi(table_.receive(data, bytes, peer, tag, request));
}

void MpiLink::gather(const void* mine, void* all, int bytes, MpiRequest* request) {
  const std::lock_guard lock(mutex_);
  check_mpi(table_.gather(mine, all, bytes, request));
}

void MpiLink::broadcast(void* data, int bytes, int root, MpiRequest* request) {
  const std::lock_guard lock(mutex_);
  check_mpi(table_.broadcast(data, bytes, root, request));
}

void MpiLink::maximum(const std::int64_t* mine, std::int64_t* most, int count,
                      MpiRequest* request) {
  const std::lock_guard lock(mutex_);
  check_mpi(table_.maximum(mine, most, count, request));
}

bool MpiLink::test(MpiRequest* request, int* bytes) {
  const std::lock_guard lock(mutex_);
  bool done = false;
  int received = 0;
  check_mpi(table_.test(request, &done, &received));
  if (done && bytes != nullptr) *bytes = received;
  return done;
}

void MpiLink::drop(MpiRequest* request) noexcept {
  const std::lock_guard lock(mutex_);
  static_cast<void>(table_.drop(request));
}

void MpiLink::finish() {
  const std::lock_guard lock(mutex_);
  check_mpi(table_.finish());
}

void MpiLink::abort(int status) noexcept {
  const std::lock_guard lock(mutex_);
  static_cast<void>(table_.abort(status));
}

}  // namespace retort
