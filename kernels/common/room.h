// Whether there is memory left, for libraries that crash where there is none.
#pragma once
#include <sys/mman.h>

#include "kernels/common/check.h"

namespace retort::kernels {

/// Throws Error(kMemory) unless so many bytes could be had at this moment. Nothing is kept.
/// Cost: two system calls.
inline void require_room(std::size_t bytes, const char* who) {
  void* const room =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED)
    fail(ErrorCode::kMemory, "out of memory: [", who, "] no room for the ", bytes >> 20,
         " MiB that making its code may take");
  munmap(room, bytes);
}

}  // namespace retort::kernels
