// Memory of tensors: caching allocators, one per device, with statistics by role.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

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
/// included.
struct MemoryStatistics {
  std::size_t current_bytes = 0;
  std::size_t peak_bytes = 0;
  std::size_t reserved_bytes = 0;
  std::array<std::size_t, kMemoryRoles> current_by_role{};
  std::array<std::size_t, kMemoryRoles> peak_by_role{};
  std::uint64_t system_allocations = 0;  // how often the system was asked: constant in steady state
};

/// 64-byte aligned on the CPU (huge pages asked for from 2 MiB on), 256-byte on CUDA. Freed blocks
/// are kept for the same size class. In sanitizer builds nothing is cached, so that overruns are
/// seen. Throws Error(kMemory), its text the statistics by role.
void* allocate(Device device, std::size_t bytes);
void release(Device device, void* pointer) noexcept;

MemoryStatistics memory_statistics(Device device);
void reset_peak_memory(Device device);
/// Gives cached blocks back to the system.
void release_cached_memory(Device device);

}  // namespace retort
