// What most streaming kernels share: 16-byte loads and stores, a grid-stride loop with a tail, the
// sum of a block in a fixed order.
#pragma once
#include <type_traits>

#include "kernels/simt/simt.h"

namespace retort::simt {

/// kWidth neighbouring elements, moved in accesses of at most 16 bytes.
template <class T, int kWidth>
struct Pack {
  T v[kWidth];
};

template <int kBytes>
struct raw_word;
template <>
struct raw_word<1> {
  using type = std::uint8_t;
};
template <>
struct raw_word<2> {
  using type = std::uint16_t;
};
template <>
struct raw_word<4> {
  using type = unsigned;
};
template <>
struct raw_word<8> {
  using type = uint2;
};
template <>
struct raw_word<16> {
  using type = uint4;
};

/// Reads p[0 .. kWidth); p is aligned to min(16, kWidth * sizeof(T)).
template <int kWidth, class T>
SIMT_D Pack<T, kWidth> load_pack(const T* p) {
  constexpr int kBytes = static_cast<int>(sizeof(T)) * kWidth, kStep = kBytes < 16 ? kBytes : 16;
  Pack<T, kWidth> pack;
  if constexpr (kWidth == 1) {
    pack.v[0] = *p;
  } else {
    using Raw = typename raw_word<kStep>::type;
#pragma unroll
    for (int i = 0; i < kBytes / kStep; ++i) {
      const Raw raw = reinterpret_cast<const Raw*>(p)[i];
      __builtin_memcpy(reinterpret_cast<char*>(pack.v) + i * kStep, &raw, kStep);
    }
  }
  return pack;
}

template <int kWidth, class T>
SIMT_D void store_pack(T* p, const Pack<T, kWidth>& pack) {
  constexpr int kBytes = static_cast<int>(sizeof(T)) * kWidth, kStep = kBytes < 16 ? kBytes : 16;
  if constexpr (kWidth == 1) {
    *p = pack.v[0];
  } else {
    using Raw = typename raw_word<kStep>::type;
#pragma unroll
    for (int i = 0; i < kBytes / kStep; ++i) {
      Raw raw;
      __builtin_memcpy(&raw, reinterpret_cast<const char*>(pack.v) + i * kStep, kStep);
      reinterpret_cast<Raw*>(p)[i] = raw;
    }
  }
}

/// Host: true if load_pack<kWidth> may be used on all these pointers.
template <int kWidth, class... T>
bool packs_aligned(const T*... pointers) {
  const auto fits = [](const auto* p) {
    constexpr std::size_t kBytes = sizeof(*p) * kWidth;
    return reinterpret_cast<std::uintptr_t>(p) % (kBytes < 16 ? kBytes : 16) == 0;
  };
  return (fits(pointers) && ...);
}

/// Host: blocks of `threads` for n elements, kWidth a thread; the loop below takes any grid.
inline unsigned blocks_for(std::int64_t n, int width, int threads = 256) {
  const std::int64_t each = std::int64_t{width} * threads, blocks = (n + each - 1) / each;
  return static_cast<unsigned>(blocks < 1 ? 1 : (blocks < 1 << 20 ? blocks : 1 << 20));
}

// Note [Loops of one turn]
//   A grid has as many threads as there are elements or packs, up to 2^20 blocks: the loop of a thread
//   turns once but for the largest tensors. Left alone, nvcc unrolls it, and every thread begins with
//   a 64-bit division that counts its turns. Hence "unroll 1".

/// Calls f(i, integral_constant<int, kWidth>) for packs i .. i + kWidth of [0, n), then
/// f(i, integral_constant<int, 1>) for what is left; grid-stride over the whole one-dimensional
/// grid.
template <int kWidth, class F>
SIMT_D void for_each_pack(std::int64_t n, F&& f) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  const std::int64_t first = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const std::int64_t packs = n / kWidth;
#pragma unroll 1
  for (std::int64_t i = first; i < packs; i += step)
    f(i * kWidth, std::integral_constant<int, kWidth>{});
  if constexpr (kWidth > 1) {
#pragma unroll 1
    for (std::int64_t i = packs * kWidth + first; i < n; i += step)
      f(i, std::integral_constant<int, 1>{});
  }
}

/// The sum of v over the block's threads, complete in thread 0, in a fixed order. `slots` is shared
/// memory of one element per warp. The block is whole warps, at most 32.
template <class A>
SIMT_D A block_sum(A v, A* slots) {
#pragma unroll
  for (int d = 16; d > 0; d >>= 1) v += __shfl_xor_sync(~0u, v, d);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  if (lane == 0) slots[warp] = v;
  __syncthreads();
  A total = 0;
  if (threadIdx.x == 0)
    for (int w = 0; w < static_cast<int>(blockDim.x) / 32; ++w) total += slots[w];
  return total;
}

}  // namespace retort::simt
