// Kernels that lack a fence, or have it in the wrong place: of the asynchronous proxy and of wgmma
// (fences_test.cpp), and of memory between blocks (planted_bug.cpp).
#pragma once
#include "kernels/simt/tile.h"
#include "kernels/simt/warpgroup.h"

namespace retort::planted {
namespace SIMT_NS {
using namespace simt;

// -- wgmma ---------------------------------------------------------------------------------------

enum class Fences {
  right,
  none,           // no async_proxy_fence at all
  too_early,      // before the writes
  one_missing,    // one thread leaves it out
  by_one,         // one thread fences for all
  written_after,  // every thread writes once more after its fence (plain stores)
  by_one_after,   // one thread does
  none_of_wgmma,  // no warpgroup_fence
  sums_after,     // the sums are written after the warpgroup_fence
  once_for_two,   // a second product after a wait and a change of the sums, without another
  never_waited
};

// Two tiles of 64 x 64 ones, written by cp.async or by plain stores; out[t] = 64 from each product.
// Launch: blocks of 128, each of which does the same; shared: 16,384 bytes.
__global__ void product_of_ones(const bf16* ones, float* out, Fences fences, bool plain) {
  SIMT_DYNAMIC_SHARED(bf16, tiles);
  const int tid = static_cast<int>(threadIdx.x);
  if (fences == Fences::too_early) async_proxy_fence();
  for (int i = tid; i < 2 * 64 * 8; i += 128) {
    if (!plain) cp_async16(tiles + 8 * i, ones);
    for (int k = 0; plain && k < 8; ++k) tiles[8 * i + k] = ones[k];
  }
  cp_async_commit();
  cp_async_wait<0>();
  const bool fence = fences == Fences::one_missing ? tid != 77
                     : fences == Fences::by_one    ? tid == 0
                                                   : fences > Fences::too_early;
  if (fence || fences == Fences::right) async_proxy_fence();
  if (fences == Fences::written_after || (fences == Fences::by_one_after && tid == 37))
    tiles[8 * tid] = to_bf16(1.5f);
  __syncthreads();
  WarpgroupAcc<64> acc;
  for (float& d : acc.d) d = 0;
  if (fences != Fences::none_of_wgmma) warpgroup_fence(acc);
  if (fences == Fences::sums_after) acc.d[5] = 1;
  for (int k = 0; k < 4; ++k) warpgroup_mma(acc, tiles, tiles + 4096, k, false);
  warpgroup_commit(acc);
  if (fences == Fences::never_waited) return;
  warpgroup_wait<0>(acc);
  if (fences == Fences::once_for_two) acc.d[0] += 1;
  if (fences != Fences::once_for_two) warpgroup_fence(acc);
  for (int k = 0; k < 4; ++k) warpgroup_mma(acc, tiles, tiles + 4096, k, false);
  warpgroup_commit(acc);
  warpgroup_wait<0>(acc);
  if (blockIdx.x == 0) out[tid] = acc.d[0];
}

// -- bulk copies ---------------------------------------------------------------------------------

// A buffer that held ordinary data is loaded by the copy engine. Launch: 1 block of 64.
template <bool kFence>
__global__ void tile_over_plain_writes(const float* in, float* o) {
  SIMT_SHARED(float4, a, [64]);
  SIMT_SHARED(TileBarrier, full, [1]);
  a[threadIdx.x] = make_float4(1, 1, 1, 1);
  if (kFence) async_proxy_fence();
  if (threadIdx.x == 0) {
    tile_barrier_init(full, 1);
    tile_barriers_ready();
  }
  __syncthreads();
  const float v = a[63 - threadIdx.x].x;
  __syncthreads();
  if (threadIdx.x == 0) {
    tile_expect(full, 1024);
    tile_load(a, in, 1024, full);
  }
  tile_wait(full, 0);
  o[threadIdx.x] = v + a[threadIdx.x].x;
}
__global__ void another_thread_makes_the_barrier_ready(const float* in, float*) {
  SIMT_SHARED(float4, a, [64]);
  SIMT_SHARED(TileBarrier, full, [1]);
  if (threadIdx.x == 0) tile_barrier_init(full, 1);
  __syncthreads();
  if (threadIdx.x != 1) return;
  tile_barriers_ready();
  tile_expect(full, 256);
  tile_load(a, in, 256, full);
  tile_wait(full, 0);
}

// -- memory between blocks -----------------------------------------------------------------------

enum class Publish { no_fence, block_fence, no_fence_after };

// As last_block of planted_bugs.cuh, but for the fence. One thread of each block does it all.
__global__ void last_block_wrong(float* part, unsigned* ticket, float* o, Publish wrong) {
  if (threadIdx.x != 0) return;
  part[blockIdx.x] = static_cast<float>(blockIdx.x + 1);
  if (wrong == Publish::block_fence) __threadfence_block();
  if (wrong == Publish::no_fence_after) __threadfence();
  if (atomicAdd(ticket, 1u) != gridDim.x - 1) return;
  if (wrong != Publish::no_fence_after) __threadfence();
  float s = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) s += part[i];
  *o = s;
}

}  // namespace SIMT_NS
}  // namespace retort::planted
