// Giving memory back never asks for any: destructors do it, and what they throw ends the program.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <vector>

#include "engine/runtime/allocator.h"
#include "engine/runtime/heap.h"
#include "tests/support/random.h"

#if !defined(RETORT_SANITIZED)  // a sanitizer has its own operator new

namespace {
thread_local bool t_no_memory = false;
thread_local int t_refused = 0;
}  // namespace

// Not inlined: GCC 12 would take the free() inside for one of another allocator's memory.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (t_no_memory) {
    ++t_refused;
    throw std::bad_alloc();
  }
  if (void* const block = std::malloc(bytes > 0 ? bytes : 1)) return block;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* block) noexcept { std::free(block); }
[[gnu::noinline]] void operator delete(void* block, std::size_t) noexcept { std::free(block); }

namespace retort::test {
namespace {

struct NoMemory {
  NoMemory() {
    t_refused = 0;
    t_no_memory = true;
  }
  ~NoMemory() { t_no_memory = false; }
};

TEST(OutOfMemory, the_flag_works) {
  const NoMemory none;
  EXPECT_THROW(static_cast<void>(std::vector<int>(100)), std::bad_alloc);
}

TEST(OutOfMemory, blocks_of_all_sizes_are_released_without_memory) {
  for (const Device device : devices()) {
    std::vector<void*> blocks;
    for (const std::size_t bytes : {1u, 64u, 700u, 5000u, 1u << 20, 3u << 20, 3u << 20, 40u << 20})
      for (int i = 0; i < 20; ++i) blocks.push_back(allocate(device, bytes + i * 300));
    const std::size_t used = memory_statistics(device).current_bytes;
    {
      const NoMemory none;
      // Every second one first, so that free blocks have neighbours in use.
      for (std::size_t i = 0; i < blocks.size(); i += 2) release(device, blocks[i]);
      for (std::size_t i = 1; i < blocks.size(); i += 2) release(device, blocks[i]);
      release_cached_memory(device);
      EXPECT_EQ(t_refused, 0);
    }
    EXPECT_LT(memory_statistics(device).current_bytes, used);
    release(device, allocate(device, 100));
    release(device, allocate(device, 10u << 20));
  }
}

// At each request that an allocation makes for its own lists.
TEST(OutOfMemory, an_allocation_that_fails_leaves_a_heap_whole) {
  class Source final : public SegmentSource {
   public:
    void* get(std::size_t least, std::size_t* size) override {
      *size = std::max<std::size_t>(least, 64 * Heap::kUnit);
      ++live;
      return std::aligned_alloc(Heap::kUnit, *size);
    }
    void put(void* segment, std::size_t) noexcept override {
      --live;
      std::free(segment);
    }
    bool lazy() const override { return true; }
    void forget(void*, std::size_t) noexcept override {}
    int live = 0;
  } source;
  {
    Heap heap(source);
    const auto refused = [&](std::size_t units) {
      const NoMemory none;
      EXPECT_THROW(heap.allocate(units * Heap::kUnit), std::bad_alloc);
    };
    refused(4);
    EXPECT_EQ(source.live, 0);
    void* const a = heap.allocate(4 * Heap::kUnit);
    void* const b = heap.allocate(4 * Heap::kUnit);
    const std::size_t resident = heap.resident_bytes();
    refused(4);
    EXPECT_EQ(heap.resident_bytes(), resident);
    heap.release(a);
    refused(2);  // a would be cut
    EXPECT_EQ(heap.allocate(4 * Heap::kUnit), a);
    heap.release(a);
    heap.release(b);
    EXPECT_NE(heap.allocate(64 * Heap::kUnit), nullptr);
    EXPECT_EQ(source.live, 1);
  }
  EXPECT_EQ(source.live, 0);
}

}  // namespace
}  // namespace retort::test
#endif
