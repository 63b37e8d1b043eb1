// Plug-ins with one fault each, for mpi_link_test.cpp: KIND says which.
#include <stdexcept>

#include "engine/distributed/mpi/mpi_plugin.h"
#include "retort_mpi_abi_hash.h"

#if KIND != 5  // the last one is a library without the entry
enum Kind { kNullInfo, kNullHash, kOtherHash, kThrowingEntry, kWithoutAbort };

extern "C" __attribute__((visibility("default"))) const retort::MpiPluginInfo* retort_mpi_plugin() {
  static retort::MpiPluginInfo info{RETORT_MPI_ABI_HASH, {}};
  // All but one function there.
  info.table.start = [](retort::MpiWorld*) noexcept { return retort::Status{}; };
  info.table.send = [](const void*, int, int, int, retort::MpiRequest*) noexcept {
    return retort::Status{};
  };
  info.table.receive = [](void*, int, int, int, retort::MpiRequest*) noexcept {
    return retort::Status{};
  };
  info.table.gather = [](const void*, void*, int, retort::MpiRequest*) noexcept {
    return retort::Status{};
  };
  info.table.broadcast = [](void*, int, int, retort::MpiRequest*) noexcept {
    return retort::Status{};
  };
  info.table.maximum = [](const std::int64_t*, std::int64_t*, int, retort::MpiRequest*) noexcept {
    return retort::Status{};
  };
  info.table.test = [](retort::MpiRequest*, bool*, int*) noexcept { return retort::Status{}; };
  info.table.drop = [](retort::MpiRequest*) noexcept { return retort::Status{}; };
  info.table.finish = []() noexcept { return retort::Status{}; };
  if (KIND != kWithoutAbort) info.table.abort = [](int) noexcept { return retort::Status{}; };
  if (KIND == kNullInfo) return nullptr;
  if (KIND == kNullHash) info.abi_hash = nullptr;
  if (KIND == kOtherHash) info.abi_hash = "0";
  if (KIND == kThrowingEntry) throw std::runtime_error("the entry is broken");
  return &info;
}
#endif
