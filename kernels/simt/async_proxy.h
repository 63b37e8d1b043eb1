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
// also those that wrote nothing. What escapes: a plain write after its own thread's fence, if
// another thread fences later.
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
    if (image_ != nullptr) munmap(image_, bytes_);
  }

  /// A block begins: nothing of its shared memory was written.
  void begin() {
    in_use_ = false;
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
          mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (m == MAP_FAILED) throw std::bad_alloc();
      image_ = static_cast<char*>(m);
    }
    poison(0, bytes_);
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
  /// A whole array, but for what cp.async landed in and no fence has followed.
  void publish(std::size_t offset, std::size_t bytes, const char* arena) {
    for (std::size_t at = offset; at < offset + bytes; at += kGranule)
      if (next_[at / kGranule] == 0) write(at, arena + at, std::min(kGranule, offset + bytes - at));
  }
  /// By the proxy itself. By words, as sanitizers' memcpy would take it for a CUDA thread's access.
  void write(std::size_t offset, const char* from, std::size_t bytes) {
    std::size_t i = 0;
    for (; i + 8 <= bytes; i += 8)
      word(offset + i) = *reinterpret_cast<const volatile std::uint64_t*>(from + i);
    for (; i < bytes; ++i) static_cast<volatile char*>(image_ + offset)[i] = from[i];
  }
  void poison(std::size_t offset, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes / 8; ++i) word(offset + 8 * i) = poison_ * kEveryByte;
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

  volatile std::uint64_t& word(std::size_t offset) {
    return *reinterpret_cast<volatile std::uint64_t*>(image_ + offset);
  }

  std::size_t bytes_;
  std::uint64_t poison_;
  std::vector<Chain> next_;  // by granule: 0, or one more than the chain's next granule, or kLast
  char* image_ = nullptr;
  bool in_use_ = false, landed_ = false;
};

}  // namespace retort::simt::emu
