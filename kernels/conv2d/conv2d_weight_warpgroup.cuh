// Weight gradient on Hopper's warp-group tensor cores, bf16: the implicit GEMM of
// conv2d_weight.cuh, filters x (taps, channels) summed over pixels, with both tiles by depth.
#pragma once
#include "kernels/conv2d/conv2d_weight.cuh"
#include "kernels/simt/warpgroup.h"

namespace retort::kernels {
namespace SIMT_NS {

inline constexpr int kWeightDepth = 64;  // pixels of a tile

// Two warp groups: with 128 filters each has 64 of them and all columns, with 64 half the columns.
template <int kRows, int kColumns>
struct WeightWarpgroupTile {
  static constexpr int kStages = 3,
                       kBlock = 64 * kWeightDepth;  // a block: 64 channels of 64 pixels
  static constexpr int kBlocksA = kRows / 64, kBlocksB = kColumns / 64;
  static constexpr int kStage = (kBlocksA + kBlocksB) * kBlock;  // elements
  static constexpr int kBytes = kStages * kStage * 2;
  static constexpr int kOwnColumns = kRows == 128 ? kColumns : kColumns / 2;
};

// A block sums kRows filters x kColumns columns over one slice of the pixels; thread t brings chunk
// t % 8 of pixels t/8 and t/8 + 32 of every block of 64 channels. A block of columns lies within
// one tap. Stages as in Note [Stages of the warp-group kernel]. Shared: 3 stages of (kRows +
// kColumns) * 128 bytes. Launch: grid (columns / kColumns, filters / kRows, slices), 256 threads;
// sm_90a. x and dy are 16-byte aligned, their channels multiples of 64; the slice a multiple of 64
// pixels.
template <int kRows, int kColumns>
__global__ void __launch_bounds__(256) conv2d_weight_warpgroup_kernel(WeightParams<bf16> p) {
  using Tile = WeightWarpgroupTile<kRows, kColumns>;
  constexpr int kStages = Tile::kStages, kOwn = Tile::kOwnColumns;
  SIMT_DYNAMIC_SHARED(bf16, s_tiles);

  const int tid = static_cast<int>(threadIdx.x), chunk = tid % 8;
  const int filter0 = static_cast<int>(blockIdx.y) * kRows,
            column0 = static_cast<int>(blockIdx.x) * kColumns;
  const int begin = static_cast<int>(blockIdx.z) * p.slice,
            end = p.slice < p.pixels - begin ? begin + p.slice : p.pixels;

  // The tap (r, s) and first channel of each block of columns.
  int r[Tile::kBlocksB], s[Tile::kBlocksB], c[Tile::kBlocksB];
#pragma unroll
  for (int b = 0; b < Tile::kBlocksB; ++b) {
    const int tap = p.by_channels.divide(column0 + 64 * b, c[b]);
    r[b] = p.by_filter_w.divide(tap, s[b]);
  }

  const auto load = [&](int tile) {
    bf16* const s_a = s_tiles + tile % kStages * Tile::kStage;
    bf16* const s_b = s_a + Tile::kBlocksA * Tile::kBlock;
#pragma unroll
    for (int l = 0; l < 2; ++l) {
      const int row = tid / 8 + 32 * l, pixel = begin + tile * kWeightDepth + row;
      const int place = swizzle128_place(row, chunk);
      int i, j;
      const int n = p.by_out_h.divide(p.by_out_w.divide(pixel, j), i);
      const int top = i * p.stride - p.padding, left = j * p.stride - p.padding;
#pragma unroll
      for (int b = 0; b < Tile::kBlocksA; ++b) {
        const int filter = filter0 + 64 * b + chunk * 8;
        const bool inside = pixel < end && filter < p.filters;
        cp_async16(s_a + b * Tile::kBlock + place,
                   p.dy + (inside ? std::int64_t{pixel} * p.filters + filter : 0), inside ? 16 : 0);
      }
#pragma unroll
      for (int b = 0; b < Tile::kBlocksB; ++b) {
        const int y = top + r[b], x = left + s[b];
        const bool inside = pixel < end && column0 + 64 * b < p.columns &&
                            static_cast<unsigned>(y) < unsigned(p.height) &&
                            static_cast<unsigned>(x) < unsigned(p.width);
        const std::int64_t at =
            inside ? std::int64_t{(n * p.height + y) * p.width + x} * p.channels + c[b] + chunk * 8
                   : 0;
        cp_async16(s_b + b * Tile::kBlock + place, p.x + at, inside ? 16 : 0);
      }
    }
  };

  const int tiles = (end - begin + kWeightDepth - 1) / kWeightDepth;
  load(0);
  cp_async_commit();
  WarpgroupAcc<kOwn> acc;
#pragma unroll
  for (int i = 0; i < kOwn / 2; ++i) acc.d[i] = 0.0f;
  const int group = tid / 128;
  int t = 0;  // a slice is never empty
  do {
    cp_async_wait<0>();
    async_proxy_fence();
    __syncthreads();  // tile t has arrived, and the products of tile t - 2 are done in both groups
    const bf16* const s_a = s_tiles + t % kStages * Tile::kStage;
    const bf16* const own_a = s_a + (kRows == 128 ? group * Tile::kBlock : 0);
    const bf16* const own_b =
        s_a + (Tile::kBlocksA + (kRows == 128 ? 0 : group * (kOwn / 64))) * Tile::kBlock;
    warpgroup_fence(acc);
#pragma unroll
    for (int k = 0; k < kWeightDepth / 16; ++k) warpgroup_mma_by_depth(acc, own_a, own_b, k, false);
    warpgroup_commit(acc);
    if (t + 1 < tiles) load(t + 1);
    cp_async_commit();
    warpgroup_wait<1>(acc);
  } while (++t < tiles);
  cp_async_wait<0>();
  warpgroup_wait<0>(acc);

  float* const part = p.parts + std::int64_t{blockIdx.z} * p.filters * p.columns;
  const int row0 = filter0 + (kRows == 128 ? group * 64 : 0) + tid % 128 / 32 * 16 + tid % 32 / 4;
  const int col0 = column0 + (kRows == 128 ? 0 : group * kOwn) + tid % 4 * 2;
#pragma unroll
  for (int j = 0; j < kOwn / 8; ++j)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = row0 + 8 * h, column = col0 + 8 * j;
      if (row < p.filters && column < p.columns)
        *reinterpret_cast<float2*>(part + std::int64_t{row} * p.columns + column) =
            make_float2(acc.d[4 * j + 2 * h], acc.d[4 * j + 2 * h + 1]);
    }
}

}  // namespace SIMT_NS
}  // namespace retort::kernels
