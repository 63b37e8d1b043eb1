#include "engine/runtime/heap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

namespace retort {
namespace {

constexpr std::size_t kUnit = Heap::kUnit;
// Bytes that take `units` of a heap.
std::size_t units(std::size_t n) { return n * kUnit; }

// Segments from the lowest free of some neighbouring places, so that two heaps with the same
// requests see them in the same order: of equal blocks a heap takes the lowest.
class Segments final : public SegmentSource {
 public:
  Segments(std::size_t size, bool is_lazy, std::size_t most = kPlaces)
      : size_(size), lazy_(is_lazy), most_(most), taken_(kPlaces) {}
  ~Segments() override {
    EXPECT_EQ(live, 0u);
    std::free(memory_);
  }
  void* get(std::size_t least, std::size_t* size) override {
    const auto place = std::find(taken_.begin(), taken_.end(), 0u);
    if (live == most_ || place == taken_.end()) return nullptr;
    *size = *place = std::max(least, size_);
    EXPECT_LE(*size, kPlace);
    char* const segment = memory_ + (place - taken_.begin()) * static_cast<std::ptrdiff_t>(kPlace);
    std::memset(segment, 0xee, *size);
    ++live, ++given;
    return segment;
  }
  void put(void* segment, std::size_t size) noexcept override {
    const auto at = static_cast<std::size_t>(static_cast<char*>(segment) - memory_);
    EXPECT_EQ(at % kPlace, 0u);
    EXPECT_EQ(taken_[at / kPlace], size);
    taken_[at / kPlace] = 0;
    std::memset(segment, 0xdd, size);
    --live;
  }
  bool lazy() const override { return lazy_; }
  void forget(void*, std::size_t size) noexcept override { forgotten += size; }
  std::size_t live = 0;
  int given = 0;
  std::size_t forgotten = 0;

 private:
  static constexpr std::size_t kPlace = 256 * kUnit, kPlaces = 64;
  std::size_t size_;
  bool lazy_;
  std::size_t most_;
  std::vector<std::size_t> taken_;  // bytes, 0: free
  char* memory_ = static_cast<char*>(std::aligned_alloc(kUnit, kPlaces* kPlace));
};

std::ptrdiff_t between(const void* a, const void* b) {
  return (static_cast<const char*>(b) - static_cast<const char*>(a)) /
         static_cast<std::ptrdiff_t>(kUnit);
}

TEST(Heap, what_one_block_leaves_serves_smaller_ones_and_joins_again) {
  Segments source(64 * kUnit, true);
  Heap heap(source);
  void* const large = heap.allocate(units(8));
  void* const behind = heap.allocate(units(1));
  heap.release(large);
  void* const a = heap.allocate(units(3));
  void* const b = heap.allocate(units(5));
  EXPECT_EQ(a, large);
  EXPECT_EQ(between(a, b), 3);
  EXPECT_EQ(heap.resident_bytes(), 9 * kUnit);
  heap.release(b);
  heap.release(a);
  EXPECT_EQ(heap.allocate(units(8)), large);
  heap.release(behind);
  EXPECT_EQ(heap.growths(), 2u);
}

TEST(Heap, takes_the_smallest_that_fits_and_of_equals_the_lowest) {
  Segments source(64 * kUnit, true);
  Heap heap(source);
  std::vector<void*> blocks;
  for (const std::size_t n : {4, 1, 2, 1, 3, 1, 2, 1}) blocks.push_back(heap.allocate(units(n)));
  for (const std::size_t i : {6, 4, 2, 0}) heap.release(blocks[i]);
  EXPECT_EQ(heap.allocate(units(2)), blocks[2]);
  EXPECT_EQ(heap.allocate(units(2)), blocks[6]);
  EXPECT_EQ(heap.allocate(units(2)), blocks[4]);  // of 3
  EXPECT_EQ(heap.allocate(units(2)), blocks[0]);  // of 4
  EXPECT_EQ(heap.allocate(1), static_cast<char*>(blocks[4]) + 2 * kUnit);
}

TEST(Heap, memory_that_was_never_used_only_adds_what_is_missing) {
  Segments source(64 * kUnit, true);
  Heap heap(source);
  heap.allocate(units(2));
  void* const last = heap.allocate(units(4));
  heap.release(last);
  EXPECT_EQ(heap.allocate(units(6)), last);
  EXPECT_EQ(heap.resident_bytes(), 8 * kUnit);
  EXPECT_EQ(source.given, 1);
}

TEST(Heap, a_segment_that_is_memory_at_once_is_counted_at_once) {
  Segments source(64 * kUnit, false);
  Heap heap(source);
  void* const block = heap.allocate(units(1));
  EXPECT_EQ(heap.resident_bytes(), 64 * kUnit);
  EXPECT_EQ(heap.growths(), 1u);
  void* const other = heap.allocate(units(63));
  EXPECT_EQ(heap.growths(), 1u);
  heap.release(other);
  heap.trim();  // not whole: stays
  EXPECT_EQ(heap.resident_bytes(), 64 * kUnit);
  heap.release(block);
  heap.trim();
  EXPECT_EQ(heap.resident_bytes(), 0u);
  EXPECT_EQ(source.live, 0u);
}

TEST(Heap, trimmed_pages_are_taken_back_and_their_places_used_again) {
  Segments source(64 * kUnit, true);
  Heap heap(source);
  void* const a = heap.allocate(units(4));
  void* const keeps = heap.allocate(units(1));
  void* const b = heap.allocate(units(4));
  heap.release(a);
  heap.release(b);
  heap.trim();
  EXPECT_EQ(source.forgotten, 8 * kUnit);
  EXPECT_EQ(heap.resident_bytes(), kUnit);
  EXPECT_EQ(source.live, 1u);
  EXPECT_EQ(heap.take(units(1)), nullptr);  // nothing is there without asking
  EXPECT_EQ(heap.allocate(units(59)), b);   // one block with what was never used
  heap.release(b);
  heap.release(keeps);
  heap.trim();
  EXPECT_EQ(source.live, 0u);
  EXPECT_EQ(heap.resident_bytes(), 0u);
}

TEST(Heap, segments_are_never_joined) {
  Segments source(4 * kUnit, true);
  Heap heap(source);
  std::vector<void*> blocks;
  for (int i = 0; i < 8; ++i) blocks.push_back(heap.allocate(units(4)));
  for (void* const block : blocks) heap.release(block);
  EXPECT_EQ(source.given, 8);
  heap.allocate(units(5));
  EXPECT_EQ(source.given, 9);
}

TEST(Heap, without_memory_it_says_so_and_goes_on) {
  Segments source(4 * kUnit, true, 1);
  Heap heap(source);
  void* const block = heap.allocate(units(4));
  EXPECT_EQ(heap.allocate(units(1)), nullptr);
  heap.release(block);
  EXPECT_EQ(heap.allocate(units(2)), block);
}

TEST(Heap, a_heap_that_does_not_cut_keeps_whole_segments) {
  Segments source(kUnit, false);
  Heap heap(source, false);
  void* const block = heap.allocate(units(4));
  heap.release(block);
  EXPECT_EQ(heap.take(units(2)), nullptr);  // half of it is too little
  EXPECT_EQ(heap.take(units(3)), block);
  EXPECT_EQ(heap.resident_bytes(), 4 * kUnit);
  heap.release(block);
  EXPECT_EQ(heap.allocate(units(4)), block);
  EXPECT_EQ(source.given, 1);
}

// Random requests: blocks never overlap and keep their content; a second heap that gets the same
// requests gives the same places; what is free in the end is one block per segment.
TEST(Heap, random_requests) {
  for (const bool lazy : {true, false}) {
    Segments source(256 * kUnit, lazy), mirror_source(256 * kUnit, lazy);
    Heap heap(source), mirror(mirror_source);
    struct Live {
      char *block, *mirrored;
      std::size_t bytes;
      char mark;
    };
    std::vector<Live> live;
    std::mt19937 random(7);
    const auto check_and_release = [&](std::size_t i) {
      for (std::size_t k = 0; k < live[i].bytes; ++k) ASSERT_EQ(live[i].block[k], live[i].mark);
      heap.release(live[i].block);
      mirror.release(live[i].mirrored);
      live[i] = live.back();
      live.pop_back();
    };
    for (int step = 0; step < 4000; ++step) {
      if (live.size() < 40 && random() % 5 < 3) {
        const std::size_t bytes = 1 + random() % (random() % 8 == 0 ? 60 * kUnit : 4 * kUnit);
        Live l{static_cast<char*>(heap.allocate(bytes)), static_cast<char*>(mirror.allocate(bytes)),
               bytes, static_cast<char>(step)};
        ASSERT_EQ(reinterpret_cast<std::uintptr_t>(l.block) % kUnit, 0u);
        std::memset(l.block, l.mark, bytes);
        live.push_back(l);
      } else if (!live.empty()) {
        check_and_release(random() % live.size());
      }
      if (step % 500 == 499) heap.trim(), mirror.trim();
      ASSERT_EQ(heap.resident_bytes(), mirror.resident_bytes());
      ASSERT_EQ(heap.growths(), mirror.growths());
    }
    while (!live.empty()) check_and_release(live.size() - 1);
    heap.trim();
    EXPECT_EQ(source.live, 0u);
    EXPECT_EQ(heap.resident_bytes(), 0u);
  }
}

}  // namespace
}  // namespace retort
