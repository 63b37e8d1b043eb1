#include "engine/runtime/allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/runtime/device.h"
#include "engine/runtime/heap.h"
#include "kernels/common/check.h"
#include "kernels/common/thread_space.h"

namespace retort {
namespace {

thread_local MemoryRole t_role = MemoryRole::kActivations;

#if defined(RETORT_SANITIZED)
constexpr bool kCaching = false;
#else
constexpr bool kCaching = true;
#endif

constexpr std::size_t kMiB = std::size_t{1} << 20, kHugePage = 2 * kMiB;
// From here on blocks come from a heap; smaller ones are kept by size class, which is quicker.
constexpr std::size_t kLarge = kMiB;

// Address space, whose pages take memory when they are first written: much of it at once, so that
// what one phase leaves is neighbour to what the next one needs. Huge pages are asked for.
class HostSegments final : public SegmentSource {
 public:
  void* get(std::size_t least, std::size_t* size) override {
    for (const std::size_t wanted : {std::max(least, 1024 * kMiB), least}) {
      *size = (wanted + kHugePage - 1) / kHugePage * kHugePage;
      if (void* const segment = map(*size)) return segment;
    }
    return nullptr;
  }
  void put(void* segment, std::size_t size) noexcept override { munmap(segment, size); }
  bool lazy() const override { return true; }
  void forget(void* begin, std::size_t size) noexcept override {
    constexpr std::uintptr_t kPage = 4096;
    const auto first = (reinterpret_cast<std::uintptr_t>(begin) + kPage - 1) / kPage * kPage;
    const auto last = (reinterpret_cast<std::uintptr_t>(begin) + size) / kPage * kPage;
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
  }

 private:
  // Aligned to a huge page: the ends that are too much are given back.
  static void* map(std::size_t size) {
    void* const got = mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (got == MAP_FAILED) return nullptr;
    char* const begin = static_cast<char*>(got);
    const std::size_t ahead =
        (kHugePage - reinterpret_cast<std::uintptr_t>(begin) % kHugePage) % kHugePage;
    if (ahead > 0) munmap(begin, ahead);
    munmap(begin + ahead + size, kHugePage - ahead);
    madvise(begin + ahead, size, MADV_HUGEPAGE);  // advice only: failure costs speed
    return begin + ahead;
  }
};

// What the driver gives is memory at once.
class DeviceSegments final : public SegmentSource {
 public:
  void* get(std::size_t least, std::size_t* size) override {
    const std::size_t wanted = least < kMiB ? 2 * kMiB : std::max(least, 20 * kMiB),
                      rounded = (wanted + kHugePage - 1) / kHugePage * kHugePage;
    for (const std::size_t bytes : {kCaching ? rounded : least, least}) {
      void* segment = nullptr;
      const Status status = cuda_runtime.allocate(&segment, bytes);
      *size = bytes;
      if (status.code == ErrorCode::kOk) return segment;
      if (status.code != ErrorCode::kMemory)
        throw Error(status.code, join("[allocator] ", status.message));
    }
    return nullptr;
  }
  void put(void* segment, std::size_t) noexcept override {
    if (cuda_runtime.release) cuda_runtime.release(segment);
  }
  bool lazy() const override { return false; }
  void forget(void*, std::size_t) noexcept override {}
};

SegmentSource& segments_of(Device device) {
  static auto* const host = new HostSegments;  // never destroyed: see allocator_of
  static auto* const cuda = new DeviceSegments;
  if (device == Device::kCpu) return *host;
  return *cuda;
}

// Size classes: powers of two cut in eighths, so that at most 1/8 of a block is unused.
std::size_t size_class(std::size_t bytes) {
  if (bytes <= 512) return (std::max<std::size_t>(bytes, 1) + 63) / 64 * 64;
  const int top = 63 - __builtin_clzll(bytes);
  const std::size_t step = std::size_t{1} << (top - 3);
  return (bytes + step - 1) / step * step;
}

thread_local bool t_no_system = false;

}  // namespace

// Note [Memory of several threads on a GPU]
//   A block is free for whoever enqueues after the work that used it. Work of one thread is in the
//   order of its stream, so a thread takes freed blocks from a cache of its own: another thread's
//   may still be in use on that one's stream. A block that is freed by another thread than the one
//   that took it waits for the freeing thread's stream first. What remains with the caller is what
//   CUDA asks of everybody: a tensor that two threads use must outlive the work of both.
//   Caches outlive their threads, as streams do (thread_context.h), and a new thread goes on with
//   one of a thread that has ended, once its stream is done.

// Guarded by its allocator's mutex.
struct MemoryPool::Blocks {
  explicit Blocks(Device d);
  ~Blocks();
  Device device;
  std::unique_ptr<Heap> heap;
};

namespace {

thread_local std::shared_ptr<MemoryPool::Blocks> t_pool;

// Blocks of one size class.
struct SizeClass {
  std::vector<void*> freed;  // has room for all of them: to free one asks for no memory
  std::size_t blocks = 0;    // freed or in use
};

// Freed blocks, for one thread on CUDA, for all of them on the CPU. Guarded by its allocator's
// mutex.
struct Cache {
  explicit Cache(Device device) : heap(segments_of(device)) {}
  Heap heap;
  std::unordered_map<std::size_t, SizeClass> classes;
  void* stream = nullptr;          // CUDA: of its thread
  std::atomic<bool> idle = false;  // CUDA: its thread has ended
};

// Outlives the thread's other objects, which may release memory at its end.
thread_local Cache* t_cache = nullptr;

struct Block {
  std::size_t asked = 0;
  std::size_t reserved = 0;  // of its size class; 0: of a heap
  MemoryRole role = MemoryRole::kActivations;
  std::shared_ptr<MemoryPool::Blocks> pool;  // null: of the cache
  Cache* cache = nullptr;
};

class Allocator {
 public:
  explicit Allocator(Device device) : device_(device) {
    if (device == Device::kCpu) new_cache();
  }

  void* allocate(std::size_t bytes) {
    Cache& cache = cache_of_thread();
    const std::lock_guard lock(mutex_);
    Block block{bytes, 0, t_role, t_pool && t_pool->device == device_ ? t_pool : nullptr, &cache};
    void* pointer = nullptr;
    if (block.pool) {
      pointer = from_heap(*block.pool->heap, bytes, /*shrinks=*/false);
    } else if (kCaching && bytes >= kLarge) {
      pointer = from_heap(cache.heap, bytes, /*shrinks=*/true);
    } else {
      block.reserved = kCaching ? size_class(bytes) : std::max<std::size_t>(bytes, 1);
      pointer = from_class(cache.classes[block.reserved], block.reserved, bytes);
    }
    try {
      live_.emplace(pointer, block);
    } catch (...) {
      put_back(pointer, block);
      throw;
    }
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
    std::unique_lock lock(mutex_);
    auto it = live_.find(pointer);
    if (it == live_.end()) return;
    if (is_foreign(it->second)) {
      lock.unlock();
      if (!wait_for_own_stream()) return;  // never handed out again: better than too early
      lock.lock();
      it = live_.find(pointer);
    }
    block = std::move(it->second);
    live_.erase(it);
    stats_.current_bytes -= block.asked;
    stats_.current_by_role[static_cast<std::size_t>(block.role)] -= block.asked;
    put_back(pointer, block);
  }

  MemoryStatistics statistics() {
    const std::lock_guard lock(mutex_);
    MemoryStatistics now = stats_;
    for (const auto& cache : caches_) {
      now.reserved_bytes += cache->heap.resident_bytes();
      now.system_allocations += cache->heap.growths();
    }
    return now;
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
    stats_.reserved_bytes -= pool.heap->resident_bytes();
    pool.heap.reset();
  }
  template <class F>
  auto locked(F&& f) {
    const std::lock_guard lock(mutex_);
    return f();
  }

 private:
  // See Note [Memory of several threads on a GPU].
  Cache& cache_of_thread() {
    if (device_ == Device::kCpu) return *caches_.front();  // one for all, there from the start
    if (t_cache != nullptr) return *t_cache;
    void* const stream = context_of(device_).stream;
    Cache* taken = nullptr;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& cache : caches_)
        if (cache->idle && taken == nullptr) taken = cache.get();
      if (taken == nullptr) taken = new_cache();
      taken->idle = false;
    }
    if (taken->stream != nullptr) (void)cuda_runtime.synchronize(taken->stream);
    taken->stream = stream;
    struct AtTheEnd {
      Cache* cache;
      ~AtTheEnd() { cache->idle = true; }
    };
    thread_local const AtTheEnd at_the_end{taken};
    t_cache = at_the_end.cache;
    return *taken;
  }

  Cache* new_cache() { return caches_.emplace_back(std::make_unique<Cache>(device_)).get(); }

  // Taken by another thread, in whose order the work of this one is not.
  bool is_foreign(const Block& block) const {
    return device_ == Device::kCuda && block.cache != t_cache &&
           !t_no_system;  // no wait in capture
  }

  bool wait_for_own_stream() noexcept {
    try {
      (void)cuda_runtime.synchronize(cache_of_thread().stream);
      return true;
    } catch (...) {  // a thread without a context of its own, and no memory for one
      return false;
    }
  }

  void put_back(void* pointer, const Block& block) noexcept {
    if (block.reserved == 0) {
      (block.pool ? *block.pool->heap : block.cache->heap).release(pointer);
      return;
    }
    SizeClass& same = block.cache->classes.find(block.reserved)->second;
    if (kCaching || t_no_system) {
      same.freed.push_back(pointer);
    } else {
      --same.blocks;
      give_back(pointer, block.reserved);
    }
  }

  void* from_class(SizeClass& same, std::size_t reserved, std::size_t asked) {
    if (!same.freed.empty()) {
      void* const pointer = same.freed.back();
      same.freed.pop_back();
      return pointer;
    }
    if (same.freed.capacity() <= same.blocks)
      same.freed.reserve(std::max<std::size_t>(8, 2 * same.blocks));
    void* const pointer = ask_system(reserved, asked);
    ++same.blocks;
    return pointer;
  }

  // shrinks: a cache's does; a pool's is counted as it grows.
  void* from_heap(Heap& heap, std::size_t bytes, bool shrinks) {
    void* pointer = heap.take(bytes);
    if (pointer != nullptr) return pointer;
    refuse_in_capture(bytes);
    const std::size_t resident = heap.resident_bytes();
    pointer = heap.allocate(bytes);
    if (pointer == nullptr) {  // once more with everything returned that nobody uses
      drop_cached();
      pointer = heap.allocate(bytes);
    }
    if (pointer == nullptr) out_of_memory(bytes);
    if (!shrinks) {
      stats_.reserved_bytes += heap.resident_bytes() - resident;
      ++stats_.system_allocations;
    }
    return pointer;
  }

  void drop_cached() noexcept {
    for (const auto& cache : caches_) {
      for (auto& [reserved, same] : cache->classes) {
        for (void* pointer : same.freed) give_back(pointer, reserved);
        same.blocks -= same.freed.size();
        same.freed.clear();
      }
      cache->heap.trim();
    }
  }

  void refuse_in_capture(std::size_t asked) const {
    if (t_no_system && device_ == Device::kCuda)
      fail(ErrorCode::kDevice, "[allocator] the captured work needs ", asked,
           " bytes that its warm-up did not: memory from the driver cannot be captured");
  }

  void* ask_system(std::size_t reserved, std::size_t asked) {
    refuse_in_capture(asked);
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
    void* pointer = nullptr;
    return posix_memalign(&pointer, 64, bytes) == 0 ? pointer : nullptr;
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
  std::vector<std::unique_ptr<Cache>> caches_;
  std::unordered_map<void*, Block> live_;
  MemoryStatistics stats_;
};

Allocator& allocator_of(Device device);

// Working memory of the CPU's kernels counts as workspace, like an op's scratch.
constexpr kernels::ThreadSpaceSource kThreadSpace{
    [](std::size_t bytes) {
      const MemoryRoleScope role(MemoryRole::kWorkspace);
      return allocator_of(Device::kCpu).allocate(bytes);
    },
    [](void* block) noexcept { allocator_of(Device::kCpu).release(block); }};

// Never destroyed: tensors in static storage may be released after main.
Allocator& allocator_of(Device device) {
  static Allocator* const cpu = [] {
    kernels::set_thread_space_source(&kThreadSpace);
    return new Allocator(Device::kCpu);
  }();
  static Allocator* const cuda = new Allocator(Device::kCuda);
  return device == Device::kCpu ? *cpu : *cuda;
}

}  // namespace

MemoryPool::Blocks::Blocks(Device d)
    : device(d), heap(std::make_unique<Heap>(segments_of(d), kCaching)) {}
MemoryPool::Blocks::~Blocks() { allocator_of(device).end_of(*this); }
MemoryPool::MemoryPool(Device device)
    : device_(device), blocks_(std::make_shared<Blocks>(device)) {}
std::size_t MemoryPool::reserved_bytes() const {
  return allocator_of(device_).locked([&] { return blocks_->heap->resident_bytes(); });
}
std::uint64_t MemoryPool::system_allocations() const {
  return allocator_of(device_).locked([&] { return blocks_->heap->growths(); });
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
