// What wgmma and the copy engine see of a block's shared memory: part of the emulator (emu.cpp).
//
// They go through the asynchronous proxy, which sees an ordinary (generic) write only once the
// thread that wrote has called async_proxy_fence(). So a block that uses it has a second image of
// its shared memory:
//   cp.async     lands in shared memory; in the image at the next fence of the thread that waited
//   bulk copies  land in both
//   plain writes nobody knows who made them: the image is brought up to date when the last thread
//                of the block has fenced since the block's last barrier
// wgmma must find in the image what shared memory holds, and so must a bulk copy where it writes.
//
// Hence a rule for kernels: all threads of a block fence before the barrier that precedes wgmma,
// also those that wrote nothing.
//
// Note [Writes after the own fence]
//   What a thread writes between its fence and the last one's would pass for fenced. Of one thread
//   at a time it is known: shared memory is kept as it is at that thread's fence and compared when
//   its turn ends, before any other thread runs. Those bytes stay as they were in the image. A
//   mistake that many threads make is seen at once; that of a single one when its turn to be
//   watched comes, which goes round by block and barrier, the same way in every run.
#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace retort::simt::emu {

/// Offsets are into the block's arena; arrays begin at multiples of 16 bytes.
class AsyncProxy {
 public:
  /// A thread's granules of 16 bytes that cp.async landed in since its last fence.
  using Chain = std::uint16_t;

  AsyncProxy(std::size_t arena_bytes, unsigned char poison)
      : bytes_(arena_bytes), poison_(poison), next_(arena_bytes / kGranule) {}
  AsyncProxy(const AsyncProxy&) = delete;
  ~AsyncProxy() {
    if (image_ != nullptr) munmap(image_, 3 * bytes_);
  }

  /// A block begins: nothing of its shared memory was written.
  void begin(std::uint64_t block, unsigned threads) {
    in_use_ = watching_ = late_ = false;
    threads_ = threads;
    watched_ = static_cast<unsigned>(kNextWatched * block % threads);
    if (landed_) std::fill(next_.begin(), next_.end(), Chain{0});
    landed_ = false;
  }
  bool in_use() const { return in_use_; }
  /// From its first fence, wgmma or bulk copy on, a block has an image.
  void use() {
    if (in_use_) return;
    in_use_ = true;
    if (image_ == nullptr) {
      void* const m =
          mmap(nullptr, 3 * bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (m == MAP_FAILED) throw std::bad_alloc();
      image_ = static_cast<char*>(m);
      before_ = image_ + bytes_;
      is_late_ = before_ + bytes_;
    }
    poison(0, bytes_);
    fill(is_late_, 0, bytes_);
  }

  void landed(Chain& chain, std::size_t offset) {
    const std::size_t g = offset / kGranule;
    if (next_[g] != 0) return;
    next_[g] = chain != 0 ? chain : kLast;
    chain = static_cast<Chain>(g + 1);
    landed_ = true;
  }
  void fence_landed(Chain& chain, const char* arena) {
    while (chain != 0) {
      const std::size_t g = chain - 1u;
      chain = next_[g] == kLast ? Chain{0} : next_[g];
      next_[g] = 0;
      write(g * kGranule, arena + g * kGranule, kGranule);
    }
  }
  /// A whole array, but for what cp.async landed in and no fence has followed, and for what the
  /// watched thread wrote after its fence.
  void publish(std::size_t offset, std::size_t bytes, const char* arena) {
    for (std::size_t at = offset; at < offset + bytes; at += kGranule)
      if (next_[at / kGranule] == 0)
        copy(image_ + at, arena + at, std::min(kGranule, offset + bytes - at));
    for (std::size_t at = offset; late_ && at < offset + bytes; ++at)
      if (is_late_[at] != 0) image_[at] = before_[at];
  }
  void published() {
    late_ = false;
    watched_ = (watched_ + kNextWatched) % threads_;
  }

  // Note [Writes after the own fence]: for each array at the fence, and when the turn ends.
  bool watches(unsigned thread) const { return thread == watched_; }
  void watch(std::size_t offset, std::size_t bytes, const char* arena) {
    watching_ = true, late_ = false;
    copy(before_ + offset, arena + offset, bytes);
  }
  bool watching(unsigned thread) const { return watching_ && thread == watched_; }
  void compare(std::size_t offset, std::size_t bytes, const char* arena) {
    const volatile char* const now = arena;
    for (std::size_t at = offset; at < offset + bytes; ++at) {
      is_late_[at] = now[at] != before_[at];
      late_ |= is_late_[at] != 0;
    }
  }
  void compared() { watching_ = false; }

  /// By the proxy itself, which is no late write of anybody's.
  void write(std::size_t offset, const char* from, std::size_t bytes) {
    if (!in_use_) return;
    copy(image_ + offset, from, bytes);
    if (watching_) copy(before_ + offset, from, bytes);
    if (late_) fill(is_late_ + offset, 0, bytes);
  }
  void poison(std::size_t offset, std::size_t bytes) {
    fill(image_ + offset, poison_ * kEveryByte, bytes);
    fill(before_ + offset, poison_ * kEveryByte, bytes);
    if (late_) fill(is_late_ + offset, 0, bytes);
  }
  bool sees(std::size_t offset, const char* there, std::size_t bytes) const {
    for (std::size_t i = 0; i < bytes; ++i)
      if (image_[offset + i] != static_cast<const volatile char*>(there)[i]) return false;
    return true;
  }

 private:
  static constexpr std::size_t kGranule = 16;
  static constexpr Chain kLast = 0xffff;
  static constexpr std::uint64_t kEveryByte = 0x0101'0101'0101'0101;

  // Coprime to the usual numbers of threads, so that all come to be watched.
  static constexpr unsigned kNextWatched = 37;

  // By words, as sanitizers' memcpy would take it for a CUDA thread's access.
  static volatile std::uint64_t& word(char* at) {
    return *reinterpret_cast<volatile std::uint64_t*>(at);
  }
  static void fill(char* to, std::uint64_t with, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes / 8; ++i) word(to + 8 * i) = with;
  }
  static void copy(char* to, const char* from, std::size_t bytes) {
    std::size_t i = 0;
    for (; i + 8 <= bytes; i += 8)
      word(to + i) = *reinterpret_cast<const volatile std::uint64_t*>(from + i);
    for (; i < bytes; ++i) static_cast<volatile char*>(to)[i] = from[i];
  }

  std::size_t bytes_;
  std::uint64_t poison_;
  std::vector<Chain> next_;  // by granule: 0, or one more than the chain's next granule, or kLast
  // Of the arena's size each: what the proxy sees; what the watched thread saw at its fence; which
  // bytes it wrote after it.
  char *image_ = nullptr, *before_ = nullptr, *is_late_ = nullptr;
  bool in_use_ = false, landed_ = false;
  bool watching_ = false, late_ = false;
  unsigned watched_ = 0, threads_ = 1;
};

}  // namespace retort::simt::emu
