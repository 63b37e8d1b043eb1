#include "engine/runtime/allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/runtime/device.h"
#include "kernels/common/check.h"

namespace retort {
namespace {

thread_local MemoryRole t_role = MemoryRole::kActivations;

#if defined(RETORT_SANITIZED)
constexpr bool kCaching = false;
#else
constexpr bool kCaching = true;
#endif

constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Size classes: powers of two cut in eighths, so that at most 1/8 of a block is unused.
std::size_t size_class(std::size_t bytes) {
  if (bytes <= 512) return (std::max<std::size_t>(bytes, 1) + 63) / 64 * 64;
  const int top = 63 - __builtin_clzll(bytes);
  const std::size_t step = std::size_t{1} << (top - 3);
  return (bytes + step - 1) / step * step;
}

thread_local bool t_no_system = false;

}  // namespace

// Guarded by its allocator's mutex.
struct MemoryPool::Blocks {
  explicit Blocks(Device d) : device(d) {}
  ~Blocks();
  Device device;
  std::multimap<std::size_t, void*> free;  // by size
  std::size_t reserved_bytes = 0;
  std::uint64_t system_allocations = 0;
};

namespace {

thread_local std::shared_ptr<MemoryPool::Blocks> t_pool;

struct Block {
  std::size_t asked = 0;
  std::size_t reserved = 0;
  MemoryRole role = MemoryRole::kActivations;
  std::shared_ptr<MemoryPool::Blocks> pool;  // null: the shared cache
};

class Allocator {
 public:
  explicit Allocator(Device device) : device_(device) {}

  void* allocate(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    const auto pool = t_pool && t_pool->device == device_ ? t_pool : nullptr;
    std::size_t reserved = kCaching || pool ? size_class(bytes) : std::max<std::size_t>(bytes, 1);
    void* pointer = pool ? take_from(*pool, reserved) : take_cached(reserved);
    if (pointer == nullptr) {
      pointer = ask_system(reserved, bytes);
      if (pool) {
        pool->reserved_bytes += reserved;
        ++pool->system_allocations;
      }
    }
    live_[pointer] = Block{bytes, reserved, t_role, pool};
    const auto role = static_cast<std::size_t>(t_role);
    stats_.current_bytes += bytes;
    stats_.peak_bytes = std::max(stats_.peak_bytes, stats_.current_bytes);
    stats_.current_by_role[role] += bytes;
    stats_.peak_by_role[role] = std::max(stats_.peak_by_role[role], stats_.current_by_role[role]);
    return pointer;
  }

  void release(void* pointer) noexcept {
    if (pointer == nullptr) return;
    Block block;  // its pool may end here, after the lock
    const std::lock_guard lock(mutex_);
    const auto it = live_.find(pointer);
    if (it == live_.end()) return;
    block = it->second;
    live_.erase(it);
    stats_.current_bytes -= block.asked;
    stats_.current_by_role[static_cast<std::size_t>(block.role)] -= block.asked;
    if (block.pool) {
      block.pool->free.emplace(block.reserved, pointer);
    } else if (kCaching || t_no_system) {
      cached_[block.reserved].push_back(pointer);
    } else {
      give_back(pointer, block.reserved);
    }
  }

  MemoryStatistics statistics() {
    const std::lock_guard lock(mutex_);
    return stats_;
  }
  void reset_peak() {
    const std::lock_guard lock(mutex_);
    stats_.peak_bytes = stats_.current_bytes;
    stats_.peak_by_role = stats_.current_by_role;
  }
  void release_cached() {
    const std::lock_guard lock(mutex_);
    drop_cached();
  }
  void end_of(MemoryPool::Blocks& pool) noexcept {
    const std::lock_guard lock(mutex_);
    for (const auto& [reserved, pointer] : pool.free) give_back(pointer, reserved);
  }
  template <class F>
  auto locked(F&& f) {
    const std::lock_guard lock(mutex_);
    return f();
  }

 private:
  void* take_cached(std::size_t reserved) {
    const auto it = cached_.find(reserved);
    if (it == cached_.end() || it->second.empty()) return nullptr;
    void* pointer = it->second.back();
    it->second.pop_back();
    return pointer;
  }

  // The smallest block that fits; `reserved` becomes its size.
  static void* take_from(MemoryPool::Blocks& pool, std::size_t& reserved) {
    const auto found = pool.free.lower_bound(reserved);
    if (found == pool.free.end() || found->first / 2 >= reserved) return nullptr;
    void* const pointer = found->second;
    reserved = found->first;
    pool.free.erase(found);
    return pointer;
  }

  void drop_cached() {
    for (auto& [reserved, blocks] : cached_)
      for (void* pointer : blocks) give_back(pointer, reserved);
    cached_.clear();
  }

  void* ask_system(std::size_t reserved, std::size_t asked) {
    if (t_no_system && device_ == Device::kCuda)
      fail(ErrorCode::kDevice, "[allocator] the captured work needs ", asked,
           " bytes that its warm-up did not: memory from the driver cannot be captured");
    ++stats_.system_allocations;
    void* pointer = system_allocate(reserved);
    if (pointer == nullptr) {  // once more with every cached block returned
      drop_cached();
      pointer = system_allocate(reserved);
    }
    if (pointer == nullptr) out_of_memory(asked);
    stats_.reserved_bytes += reserved;
    return pointer;
  }

  void* system_allocate(std::size_t bytes) {
    if (device_ == Device::kCuda) {
      void* pointer = nullptr;
      const Status status = cuda_runtime.allocate(&pointer, bytes);
      if (status.code == ErrorCode::kOk) return pointer;
      if (status.code == ErrorCode::kMemory) return nullptr;
      throw Error(status.code, join("[allocator] ", status.message));
    }
    const bool huge = kCaching && bytes >= kHugePage;
    void* pointer = nullptr;
    if (posix_memalign(&pointer, huge ? kHugePage : 64, bytes) != 0) return nullptr;
    if (huge)
      madvise(pointer, bytes, MADV_HUGEPAGE);  // advice only: failure costs speed, not correctness
    return pointer;
  }

  void give_back(void* pointer, std::size_t reserved) noexcept {
    stats_.reserved_bytes -= reserved;
    if (device_ == Device::kCuda) {
      if (cuda_runtime.release) cuda_runtime.release(pointer);
    } else {
      std::free(pointer);
    }
  }

  [[noreturn]] void out_of_memory(std::size_t asked) {
    std::string roles;
    for (int i = 0; i < kMemoryRoles; ++i)
      roles += join(i ? ", " : "", name_of(static_cast<MemoryRole>(i)), " ",
                    stats_.current_by_role[static_cast<std::size_t>(i)] >> 20, " MiB");
    fail(ErrorCode::kMemory, "[allocator] out of memory on ", name_of(device_), ": asked for ",
         asked >> 20, " MiB with ", stats_.current_bytes >> 20, " MiB in use (", roles, ")");
  }

  Device device_;
  std::mutex mutex_;
  std::unordered_map<void*, Block> live_;
  std::unordered_map<std::size_t, std::vector<void*>> cached_;
  MemoryStatistics stats_;
};

// Never destroyed: tensors in static storage may be released after main.
Allocator& allocator_of(Device device) {
  static Allocator* const cpu = new Allocator(Device::kCpu);
  static Allocator* const cuda = new Allocator(Device::kCuda);
  return device == Device::kCpu ? *cpu : *cuda;
}

}  // namespace

MemoryPool::Blocks::~Blocks() { allocator_of(device).end_of(*this); }
MemoryPool::MemoryPool(Device device)
    : device_(device), blocks_(std::make_shared<Blocks>(device)) {}
std::size_t MemoryPool::reserved_bytes() const {
  return allocator_of(device_).locked([&] { return blocks_->reserved_bytes; });
}
std::uint64_t MemoryPool::system_allocations() const {
  return allocator_of(device_).locked([&] { return blocks_->system_allocations; });
}

MemoryPoolScope::MemoryPoolScope(const MemoryPool& pool)
    : before_(std::exchange(t_pool, pool.blocks())) {}
MemoryPoolScope::~MemoryPoolScope() { t_pool = std::move(before_); }

NoSystemMemory::NoSystemMemory() { t_no_system = true; }
NoSystemMemory::~NoSystemMemory() { t_no_system = false; }

const char* name_of(MemoryRole role) {
  switch (role) {
    case MemoryRole::kActivations: return "activations";
    case MemoryRole::kParameters: return "parameters";
    case MemoryRole::kGradients: return "gradients";
    case MemoryRole::kOptimizer: return "optimizer";
    case MemoryRole::kWorkspace: return "workspace";
    case MemoryRole::kData: return "data";
  }
  return "?";
}

MemoryRoleScope::MemoryRoleScope(MemoryRole role) : before_(t_role) { t_role = role; }
MemoryRoleScope::~MemoryRoleScope() { t_role = before_; }

void* allocate(Device device, std::size_t bytes) {
  if (device == Device::kCuda)
    context_of(device);  // loads the plug-in or throws the plain sentence
  return allocator_of(device).allocate(bytes);
}
void release(Device device, void* pointer) noexcept { allocator_of(device).release(pointer); }
MemoryStatistics memory_statistics(Device device) { return allocator_of(device).statistics(); }
void reset_peak_memory(Device device) { allocator_of(device).reset_peak(); }
void release_cached_memory(Device device) { allocator_of(device).release_cached(); }

}  // namespace retort
