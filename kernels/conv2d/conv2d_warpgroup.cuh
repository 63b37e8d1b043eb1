// Forward pass and data gradient on Hopper's warp-group tensor cores (wgmma), bf16: the gather of
// conv2d_images.cuh with both operands read from shared memory by the tensor cores themselves.
//
// Note [Stages of the warp-group kernel]
//   Tile t is loaded by cp.async into stage t % kStages, two tiles behind the tensor cores:
//     wait for tile t's copies; barrier
//     start the products of tile t
//     start the copies of tile t + kStages - 2 into the stage of tile t - 2
//     wait until only the products of tile t are under way
//   The barrier of step t comes after every warp group's wait for the products of tile t - 2, so
//   the stage that is written in step t is read by nobody. A block never idles its tensor cores
//   between tiles, unless the copies are late.
#pragma once
#include "kernels/conv2d/conv2d_images.cuh"
#include "kernels/simt/warpgroup.h"

namespace retort::kernels {
namespace SIMT_NS {

inline constexpr int kWarpgroupThreads = 256;  // two warp groups of 64 rows each
inline constexpr int kWarpgroupDepth = 64;     // channels of a tile: 128 bytes, one swizzle period

template <int kColumns>
struct WarpgroupTile {
  static constexpr int kRows = 128;
  // Two blocks to an SM (3 or 4 stages of 32 or 24 KiB each), one for the widest tile.
  static constexpr int kStages = kColumns == 128 ? 3 : 4;
  static constexpr int kTileA = kRows * kWarpgroupDepth, kTileB = kColumns * kWarpgroupDepth;
  static constexpr int kStage = kTileA + kTileB;  // elements
  static constexpr int kBytes = kStages * kStage * 2 + kRows * 4;
  static_assert(finish_tile_bytes<bf16, kRows, kColumns, kWarpgroupThreads>() <=
                kStages * kStage * 2);
};

// The sums of a warp group as finish_tile wants them.
template <int kColumns>
struct WarpgroupProduct {
  WarpgroupAcc<kColumns> acc;
  int row0, column0;  // of this thread

  SIMT_D WarpgroupProduct() {
    const int t = static_cast<int>(threadIdx.x);
    row0 = t / 32 * 16 + t % 32 / 4;
    column0 = t % 4 * 2;
#pragma unroll
    for (int i = 0; i < kColumns / 2; ++i) acc.d[i] = 0.0f;
  }
  template <class F>
  SIMT_D void for_each_pair(F&& f) const {
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j)
#pragma unroll
      for (int h = 0; h < 2; ++h)
        f(row0 + 8 * h, column0 + 8 * j, acc.d[4 * j + 2 * h], acc.d[4 * j + 2 * h + 1]);
  }
  template <class F>
  SIMT_D void add_to_columns(F&& f) {
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float value = f(column0 + 8 * j + e);
        acc.d[4 * j + e] += value, acc.d[4 * j + 2 + e] += value;
      }
  }
};

// A block computes 128 rows x kColumns columns; thread t brings chunk t % 8 of rows t/8 + 32 i of
// both operands. A tile lies within one tap of the filter.
// Shared: kStages stages of (128 + kColumns) * 128 bytes, then the rows' pixels.
// Launch: grid (rows of the largest phase / 128, columns / kColumns, phases), 256 threads; sm_90a.
// The source is 16-byte aligned and its channels are a multiple of 64.
template <int kColumns>
__global__ void __launch_bounds__(kWarpgroupThreads)
    conv2d_images_warpgroup_kernel(ImagesParams<bf16> p) {
  using Tile = WarpgroupTile<kColumns>;
  constexpr int kRows = Tile::kRows, kStages = Tile::kStages;
  constexpr int kLoadsA = kRows / 32, kLoadsB = kColumns / 32;
  SIMT_DYNAMIC_SHARED(bf16, s_tiles);
  // Not a static array: nothing may lie before the tiles, which the swizzle wants aligned.
  int* const s_pixel = reinterpret_cast<int*>(s_tiles + kStages * Tile::kStage);

  const int phase = static_cast<int>(blockIdx.z), tid = static_cast<int>(threadIdx.x);
  const int phase_h = p.backward ? phase / p.stride : 0,
            phase_w = p.backward ? phase % p.stride : 0;
  const Axis h = axis_of(p.backward, phase_h, p.out_h, p.filter_h, p.stride, p.padding);
  const Axis w = axis_of(p.backward, phase_w, p.out_w, p.filter_w, p.stride, p.padding);
  const int rows = p.batch * h.rows * w.rows;
  const int row0 = static_cast<int>(blockIdx.x) * kRows,
            column0 = static_cast<int>(blockIdx.y) * kColumns;
  if (row0 >= rows) return;  // the whole block: another phase has more rows
  const bf16* const weight = p.weight + std::int64_t{phase} * p.output.columns * p.pitch;

  if (tid < kRows) s_pixel[tid] = pixel_of(p, h, w, phase_h, phase_w, row0 + tid, rows);
  const int chunk = tid % 8;
  int image[kLoadsA], top[kLoadsA], left[kLoadsA];
#pragma unroll
  for (int l = 0; l < kLoadsA; ++l)
    source_of(p, h, w, row0 + tid / 8 + 32 * l, rows, image[l], top[l], left[l]);

  // The tap and first channel of the next tile to load.
  int tap_h = 0, tap_w = 0, channel0 = 0;
  const auto load = [&](int tile) {
    bf16* const s_a = s_tiles + tile % kStages * Tile::kStage;
    bf16* const s_b = s_a + Tile::kTileA;
    const int dh = tap_h * h.step, dw = tap_w * w.step;
#pragma unroll
    for (int l = 0; l < kLoadsA; ++l) {
      const int y = top[l] + dh, x = left[l] + dw;
      const bool inside = static_cast<unsigned>(y) < unsigned(p.source_h) &&
                          static_cast<unsigned>(x) < unsigned(p.source_w);
      const std::int64_t at =
          inside ? std::int64_t{image[l] + y * p.source_w + x} * p.source_c + channel0 + chunk * 8
                 : 0;
      cp_async16(s_a + swizzle128_place(tid / 8 + 32 * l, chunk), p.source + at, inside ? 16 : 0);
    }
#pragma unroll
    for (int l = 0; l < kLoadsB; ++l) {
      const int column = tid / 8 + 32 * l;
      const bool inside = column0 + column < p.output.columns;
      const std::int64_t at =
          inside ? std::int64_t{column0 + column} * p.pitch + tile * kWarpgroupDepth + chunk * 8
                 : 0;
      cp_async16(s_b + swizzle128_place(column, chunk), weight + at, inside ? 16 : 0);
    }
    channel0 += kWarpgroupDepth;
    if (channel0 == p.source_c) {
      channel0 = 0;
      if (++tap_w == w.taps) tap_w = 0, ++tap_h;
    }
  };

  const int tiles = h.taps * w.taps * (p.source_c / kWarpgroupDepth);
  for (int t = 0; t < kStages - 2; ++t) {
    if (t < tiles) load(t);
    cp_async_commit();
  }
  WarpgroupProduct<kColumns> product;
  for (int t = 0; t < tiles; ++t) {
    cp_async_wait<kStages - 3>();
    async_proxy_fence();
    __syncthreads();  // tile t has arrived, and the products of tile t - 2 are done in all groups
    const bf16* const s_a = s_tiles + t % kStages * Tile::kStage;
    const bf16* const s_own = s_a + tid / 128 * (64 * kWarpgroupDepth);
    warpgroup_fence(product.acc);
#pragma unroll
    for (int k = 0; k < kWarpgroupDepth / 16; ++k)
      warpgroup_mma(product.acc, s_own, s_a + Tile::kTileA, k, false);
    warpgroup_commit(product.acc);
    if (t + kStages - 2 < tiles) load(t + kStages - 2);
    cp_async_commit();
    warpgroup_wait<1>(product.acc);
  }
  cp_async_wait<0>();
  warpgroup_wait<0>(product.acc);
  __syncthreads();

  finish_tile<bf16, kRows, kColumns, kWarpgroupThreads>(
      product, reinterpret_cast<unsigned char*>(s_tiles), s_pixel,
      rows - row0 < kRows ? rows - row0 : kRows, column0, static_cast<int>(blockIdx.x), p.output);
}

}  // namespace SIMT_NS
}  // namespace retort::kernels
