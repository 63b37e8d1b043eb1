// What the convolution kernels share: shared-memory tiles of 16-byte chunks, and the product of two
// tiles on tensor cores (bf16) or by fused multiply-adds (f32).
//
// Note [Tiles]
// A tile holds kTileDepth<T> = 4 chunks' worth of the summed dimension (32 bf16 or 16 f32). It is
// stored either
//   by rows:   [row][depth], 4 chunks a row    (both operands of the forward pass)
//   by depth:  [depth][row], rows / elements-per-chunk chunks (weight gradient: pixels are summed)
// Chunk c of row r lies at place r * chunks + (c ^ swizzle(r)): eight consecutive rows of one chunk
// column fall on the eight 16-byte groups of the 32 banks, so neither ldmatrix nor 16-byte loads
// conflict.
#pragma once
#include <cstdint>

#include "kernels/common/dtype.h"
#include "kernels/simt/tensor_core.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

inline constexpr int kConvThreads = 128;
inline constexpr int kConvStages = 4;
inline constexpr int kTileChunks = 4;  // chunks of depth in one tile
template <class T>
inline constexpr int kChunkElements = 16 / static_cast<int>(sizeof(T));
template <class T>
inline constexpr int kTileDepth = kTileChunks* kChunkElements<T>;

template <class T>
struct alignas(16) Chunk {
  T v[kChunkElements<T>];
};

/// Byte offset of chunk `chunk` of row `row` in a tile with kChunks chunks a row (a power of two).
template <int kChunks>
SIMT_HD int tile_offset(int row, int chunk) {
  static_assert(kChunks == 4 || kChunks % 8 == 0);
  const int swizzle = kChunks == 4 ? row >> 1 & 3 : row & 7;
  return (row * kChunks + (chunk ^ swizzle)) * 16;
}

/// Division of 31-bit numbers by a constant of the launch (Granlund and Montgomery 1994, fig. 4.1).
struct Divisor {
  std::uint32_t value = 1, factor = 1, shift = 0;
  Divisor() = default;
  explicit Divisor(std::uint32_t d) : value(d) {
    while ((std::uint64_t{1} << shift) < d) ++shift;
    factor = static_cast<std::uint32_t>(
        (std::uint64_t{1} << 32) * ((std::uint64_t{1} << shift) - d) / d + 1);
  }
  SIMT_HD int divide(int n, int& rest) const {
    const auto u = static_cast<std::uint32_t>(n);
    const auto high = static_cast<std::uint32_t>(std::uint64_t{u} * factor >> 32);
    const std::uint32_t quotient = (high + u) >> shift;
    rest = static_cast<int>(u - quotient * value);
    return static_cast<int>(quotient);
  }
};

/// acc[kRows][kColumns] += a tile * b tile, spread over the 128 threads of a block.
template <class T, int kRows, int kColumns>
struct TileProduct;

// Four warps in a grid of kWarpRows x kWarpColumns; each owns m16n8k16 fragments of its part.
template <int kRows, int kColumns>
struct TileProduct<bf16, kRows, kColumns> {
  static constexpr int kWarpColumns = kRows <= 32 ? 4 : kColumns >= 64 ? 2 : 1;
  static constexpr int kWarpRows = 4 / kWarpColumns;
  static constexpr int kM = kRows / kWarpRows / 16, kN = kColumns / kWarpColumns / 8;
  static_assert(kM >= 1 && kN >= 2 && kN % 2 == 0);
  float acc[kM][kN][4];
  int lane, row0, column0;

  SIMT_D TileProduct() {
    lane = static_cast<int>(threadIdx.x) & 31;
    const int warp = static_cast<int>(threadIdx.x) >> 5;
    row0 = warp / kWarpColumns * (kM * 16);
    column0 = warp % kWarpColumns * (kN * 8);
#pragma unroll
    for (int i = 0; i < kM; ++i)
#pragma unroll
      for (int j = 0; j < kN; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) acc[i][j][e] = 0.0f;
  }

  // Both tiles by rows.
  SIMT_D void add_by_rows(const unsigned char* s_a, const unsigned char* s_b) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      std::uint32_t a[kM][4];
#pragma unroll
      for (int i = 0; i < kM; ++i)
        ldmatrix_x4(
            a[i], s_a + tile_offset<kTileChunks>(row0 + i * 16 + (lane & 15), 2 * k + (lane >> 4)));
#pragma unroll
      for (int j = 0; j < kN; j += 2) {
        std::uint32_t b[4];
        ldmatrix_x4(b,
                    s_b + tile_offset<kTileChunks>(column0 + j * 8 + (lane & 7) + (lane >> 4 << 3),
                                                   2 * k + (lane >> 3 & 1)));
        multiply(j, a, b);
      }
    }
  }

  // Both tiles by depth: the loads transpose.
  SIMT_D void add_by_depth(const unsigned char* s_a, const unsigned char* s_b) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      std::uint32_t a[kM][4];
#pragma unroll
      for (int i = 0; i < kM; ++i)
        ldmatrix_x4_trans(a[i],
                          s_a + tile_offset<kRows / 8>(k * 16 + (lane & 7) + (lane >> 4 << 3),
                                                       (row0 + i * 16) / 8 + (lane >> 3 & 1)));
#pragma unroll
      for (int j = 0; j < kN; j += 2) {
        std::uint32_t b[4];
        ldmatrix_x4_trans(b, s_b + tile_offset<kColumns / 8>(k * 16 + (lane & 15),
                                                             (column0 + j * 8) / 8 + (lane >> 4)));
        multiply(j, a, b);
      }
    }
  }

  // f(row, column, sum) for every element of the product that this thread holds.
  template <class F>
  SIMT_D void for_each(F&& f) const {
#pragma unroll
    for (int i = 0; i < kM; ++i)
#pragma unroll
      for (int j = 0; j < kN; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          f(row0 + i * 16 + lane / 4 + (e >> 1) * 8, column0 + j * 8 + lane % 4 * 2 + (e & 1),
            acc[i][j][e]);
  }

  // f(row, column, sum, sum at column + 1): neighbours lie in one thread.
  template <class F>
  SIMT_D void for_each_pair(F&& f) const {
#pragma unroll
    for (int i = 0; i < kM; ++i)
#pragma unroll
      for (int j = 0; j < kN; ++j)
#pragma unroll
        for (int e = 0; e < 4; e += 2)
          f(row0 + i * 16 + lane / 4 + e * 4, column0 + j * 8 + lane % 4 * 2, acc[i][j][e],
            acc[i][j][e + 1]);
  }

  // Adds f(column) to every row.
  template <class F>
  SIMT_D void add_to_columns(F&& f) {
#pragma unroll
    for (int j = 0; j < kN; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float value = f(column0 + j * 8 + lane % 4 * 2 + e);
#pragma unroll
        for (int i = 0; i < kM; ++i) acc[i][j][e] += value, acc[i][j][e + 2] += value;
      }
  }

 private:
  SIMT_D void multiply(int j, const std::uint32_t (&a)[kM][4], const std::uint32_t (&b)[4]) {
#pragma unroll
    for (int i = 0; i < kM; ++i) {
      mma_bf16_16x8x16(acc[i][j], a[i], b[0], b[1]);
      mma_bf16_16x8x16(acc[i][j + 1], a[i], b[2], b[3]);
    }
  }
};

// A grid of 16 x 8 threads. The eight lanes of a quarter warp read one address of a, and eight
// neighbouring chunks of b.
template <int kRows, int kColumns>
struct TileProduct<float, kRows, kColumns> {
  static constexpr int kM = kRows / 16, kN = kColumns / 8;
  static_assert(kM % 4 == 0 && kN % 4 == 0);
  float acc[kM][kN];
  int ty, tx;
  bool by_depth = false;

  SIMT_D TileProduct() {
    ty = static_cast<int>(threadIdx.x) / 8;
    tx = static_cast<int>(threadIdx.x) % 8;
#pragma unroll
    for (int i = 0; i < kM; ++i)
#pragma unroll
      for (int j = 0; j < kN; ++j) acc[i][j] = 0.0f;
  }

  // Thread (ty, tx) holds rows ty + 16 i and columns tx + 8 j.
  SIMT_D void add_by_rows(const unsigned char* s_a, const unsigned char* s_b) {
#pragma unroll 1  // unrolled, the loads of all chunks are hoisted and take all registers
    for (int k = 0; k < kTileChunks; ++k) {
      float4 b[kN];
#pragma unroll
      for (int j = 0; j < kN; ++j)
        b[j] = load_shared16(s_b + tile_offset<kTileChunks>(tx + 8 * j, k));
#pragma unroll
      for (int i = 0; i < kM; ++i) {
        const float4 a = load_shared16(s_a + tile_offset<kTileChunks>(ty + 16 * i, k));
#pragma unroll
        for (int j = 0; j < kN; ++j) {
          acc[i][j] = fmaf(a.x, b[j].x, acc[i][j]);
          acc[i][j] = fmaf(a.y, b[j].y, acc[i][j]);
          acc[i][j] = fmaf(a.z, b[j].z, acc[i][j]);
          acc[i][j] = fmaf(a.w, b[j].w, acc[i][j]);
        }
      }
    }
  }

  // Thread (ty, tx) holds the rows of chunks ty + 16 i and the columns of chunks tx + 8 j.
  SIMT_D void add_by_depth(const unsigned char* s_a, const unsigned char* s_b) {
    by_depth = true;
#pragma unroll
    for (int k = 0; k < kTileDepth<float>; ++k) {
      float a[kM], b[kN];
#pragma unroll
      for (int i = 0; i < kM / 4; ++i)
        unpack(a + 4 * i, s_a + tile_offset<kRows / 4>(k, ty + 16 * i));
#pragma unroll
      for (int j = 0; j < kN / 4; ++j)
        unpack(b + 4 * j, s_b + tile_offset<kColumns / 4>(k, tx + 8 * j));
#pragma unroll
      for (int i = 0; i < kM; ++i)
#pragma unroll
        for (int j = 0; j < kN; ++j) acc[i][j] = fmaf(a[i], b[j], acc[i][j]);
    }
  }

  template <class F>
  SIMT_D void for_each(F&& f) const {
#pragma unroll
    for (int i = 0; i < kM; ++i)
#pragma unroll
      for (int j = 0; j < kN; ++j) {
        if (by_depth)
          f(4 * (ty + i / 4 * 16) + i % 4, 4 * (tx + j / 4 * 8) + j % 4, acc[i][j]);
        else
          f(ty + 16 * i, tx + 8 * j, acc[i][j]);
      }
  }

  // Adds f(column) to every row of tiles by rows.
  template <class F>
  SIMT_D void add_to_columns(F&& f) {
#pragma unroll
    for (int j = 0; j < kN; ++j) {
      const float value = f(tx + 8 * j);
#pragma unroll
      for (int i = 0; i < kM; ++i) acc[i][j] += value;
    }
  }

 private:
  SIMT_D static void unpack(float* to, const unsigned char* from) {
    const float4 v = load_shared16(from);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
  }
};

}  // namespace SIMT_NS
}  // namespace retort::kernels
