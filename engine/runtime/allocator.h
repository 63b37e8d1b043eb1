// Memory of tensors: caching allocators, one per device, with statistics by role.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/common/context.h"

namespace retort {

/// What memory is used for. The role of an allocation is that of the innermost MemoryRoleScope.
enum class MemoryRole : std::uint8_t {
  kActivations,
  kParameters,
  kGradients,
  kOptimizer,
  kWorkspace,
  kData
};
inline constexpr int kMemoryRoles = 6;
const char* name_of(MemoryRole role);

class MemoryRoleScope {
 public:
  explicit MemoryRoleScope(MemoryRole role);
  ~MemoryRoleScope();
  MemoryRoleScope(const MemoryRoleScope&) = delete;
  MemoryRoleScope& operator=(const MemoryRoleScope&) = delete;

 private:
  MemoryRole before_;
};

/// Bytes as asked for (not rounded); reserved_bytes is what the system gave, cached blocks
/// included; on the CPU without address space that was never used.
struct MemoryStatistics {
  std::size_t current_bytes = 0;
  std::size_t peak_bytes = 0;
  std::size_t reserved_bytes = 0;
  std::array<std::size_t, kMemoryRoles> current_by_role{};
  std::array<std::size_t, kMemoryRoles> peak_by_role{};
  std::uint64_t system_allocations = 0;  // how often the system was asked: constant in steady state
};

/// 64-byte aligned on the CPU, 256-byte on CUDA. Freed blocks are kept: below 1 MiB for the same
/// size class, from there on in a heap (heap.h; on the CPU with huge pages), whose neighbours join.
/// In sanitizer builds nothing is cached, so that overruns are seen. Throws Error(kMemory), its
/// text the statistics by role.
void* allocate(Device device, std::size_t bytes);
void release(Device device, void* pointer) noexcept;

/// Memory that nothing outside shares: for captured graphs, whose addresses must stay theirs.
///
/// While a MemoryPoolScope of it lives, this thread's tensors on its device come from a heap of its
/// own (heap.h), and go back there. Memory stays with the pool, in sanitizer builds too, until the
/// last handle on it and the last tensor in it are gone. Equal requests from an equal state get
/// equal blocks.
class MemoryPool {
 public:
  explicit MemoryPool(Device device);
  struct Blocks;  // shared with the tensors that live in it
  const std::shared_ptr<Blocks>& blocks() const { return blocks_; }
  Device device() const { return device_; }
  std::size_t reserved_bytes() const;        // what the system gave, free blocks included
  std::uint64_t system_allocations() const;  // how often it was asked

 private:
  Device device_;
  std::shared_ptr<Blocks> blocks_;
};

class MemoryPoolScope {
 public:
  explicit MemoryPoolScope(const MemoryPool& pool);
  ~MemoryPoolScope();
  MemoryPoolScope(const MemoryPoolScope&) = delete;
  MemoryPoolScope& operator=(const MemoryPoolScope&) = delete;

 private:
  std::shared_ptr<MemoryPool::Blocks> before_;
};

/// While one lives, memory that a pool does not have is an error of this thread (a capture may not
/// ask the driver), and blocks outside pools are kept when they are released.
class NoSystemMemory {
 public:
  NoSystemMemory();
  ~NoSystemMemory();
  NoSystemMemory(const NoSystemMemory&) = delete;
  NoSystemMemory& operator=(const NoSystemMemory&) = delete;
};

MemoryStatistics memory_statistics(Device device);
void reset_peak_memory(Device device);
/// Gives cached blocks back to the system.
void release_cached_memory(Device device);

}  // namespace retort
