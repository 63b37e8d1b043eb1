// Kernels over clusters and bulk copies with one planted bug each; see planted_bugs.cuh.
#pragma once
#include "kernels/simt/cluster.h"
#include "kernels/simt/simt.h"
#include "kernels/simt/tile.h"
#include "kernels/simt/warpgroup.h"

namespace retort::planted {
namespace SIMT_NS {
using namespace simt;

// -- the emulator reports ------------------------------------------------------------------------

__global__ void blocks_at_different_barriers(float* o) {
  if (cluster_rank() == 1)
    __syncthreads();
  else
    cluster_sync();
  if (cluster_rank() == 1 && threadIdx.x < 3) cluster_sync();  // the block's other threads never
  if (cluster_rank() == 1) __syncthreads();
  o[64 * blockIdx.x + threadIdx.x] = 1;
}
__global__ void one_block_leaves_early(float* o) {
  if (cluster_rank() == 1) return;
  cluster_sync();
  o[64 * blockIdx.x + threadIdx.x] = 1;
}
__global__ void lanes_at_different_cluster_barriers(float* o) {
  if (threadIdx.x % 32 < 16)
    cluster_sync();
  else
    cluster_sync();
  o[64 * blockIdx.x + threadIdx.x] = 1;
}
__global__ void arrive_twice(float* o) {
  cluster_arrive();
  cluster_arrive();
  cluster_wait();
  o[64 * blockIdx.x + threadIdx.x] = 1;
}
__global__ void wait_without_arrive(float* o) {
  cluster_wait();
  o[64 * blockIdx.x + threadIdx.x] = 1;
}
__global__ void arrive_and_exit(float*) { cluster_arrive(); }
__global__ void no_barrier_before_exit(float* o) {  // rank 0 may be gone when rank 1 reads
  SIMT_SHARED(float, a, [64]);
  a[threadIdx.x] = 2;
  cluster_sync();
  o[64 * blockIdx.x + threadIdx.x] = *map_shared_rank(&a[threadIdx.x], cluster_rank() ^ 1u);
}
__global__ void no_barrier_before_mapping(float* o) {
  SIMT_SHARED(float, a, [64]);
  *map_shared_rank(&a[threadIdx.x], cluster_rank() ^ 1u) = 1;
  cluster_sync();
  o[64 * blockIdx.x + threadIdx.x] = a[threadIdx.x];
}
__global__ void rank_past_the_cluster(float* o) {
  SIMT_SHARED(float, a, [64]);
  a[threadIdx.x] = 2;
  cluster_sync();
  o[64 * blockIdx.x + threadIdx.x] = *map_shared_rank(&a[threadIdx.x], cluster_size());
  cluster_sync();
}
__global__ void maps_global_memory(float* o) {
  cluster_sync();
  *map_shared_rank(o + 64 * blockIdx.x + threadIdx.x, 0) = 1;
  cluster_sync();
}
// The pointer outlives the last barrier: rank 1 reads rank 0's memory after that has exited.
__global__ void reads_after_exit(float* o) {
  SIMT_SHARED(float, a, [64]);
  a[threadIdx.x] = 2;
  cluster_sync();
  const volatile float* const p = map_shared_rank(&a[threadIdx.x], 0);
  cluster_sync();
  if (cluster_rank() == 1) o[threadIdx.x] = *p;
}

__global__ void tile_bytes_missing(const float* in, float* o) {
  SIMT_SHARED(float4, a, [64]);
  SIMT_SHARED(TileBarrier, full, [1]);
  if (threadIdx.x == 0) {
    tile_barrier_init(full, 1);
    tile_barriers_ready();
    tile_expect(full, 512);
    tile_load(a, in, 256, full);
  }
  __syncthreads();
  tile_wait(full, 0);
  o[64 * blockIdx.x + threadIdx.x] = a[threadIdx.x].x;
}
__global__ void tile_never_initialised(const float* in, float*) {
  SIMT_SHARED(float4, a, [64]);
  SIMT_SHARED(TileBarrier, full, [1]);
  if (threadIdx.x == 0) tile_load(a, in, 256, full);
}
__global__ void tile_barrier_not_made_ready(const float* in, float*) {
  SIMT_SHARED(float4, a, [64]);
  SIMT_SHARED(TileBarrier, full, [1]);
  if (threadIdx.x != 0) return;
  tile_barrier_init(full, 1);
  tile_load(a, in, 256, full);
}
__global__ void tile_never_waited(const float* in, float*) {
  SIMT_SHARED(float4, a, [64]);
  SIMT_SHARED(TileBarrier, full, [1]);
  if (threadIdx.x != 0) return;
  tile_barrier_init(full, 1);
  tile_barriers_ready();
  tile_expect(full, 256);
  tile_load(a, in, 256, full);
}
__global__ void tile_past_the_array(const float* in, float*) {
  SIMT_SHARED(float4, a, [8]);
  SIMT_SHARED(TileBarrier, full, [1]);
  if (threadIdx.x != 0) return;
  tile_barrier_init(full, 1);
  tile_barriers_ready();
  tile_load(a + 4, in, 80, full);
}
__global__ void tile_load_of(const float* in, float* o, unsigned bytes) {  // correct if aligned
  SIMT_SHARED(float4, a, [64]);
  SIMT_SHARED(TileBarrier, full, [1]);
  if (threadIdx.x == 0) {
    tile_barrier_init(full, 1);
    tile_barriers_ready();
    tile_expect(full, bytes);
    tile_load(a, in, bytes, full);
  }
  __syncthreads();
  tile_wait(full, 0);
  o[64 * blockIdx.x + threadIdx.x] = reinterpret_cast<const float*>(a)[threadIdx.x];
}

// -- numbers go wrong, and ThreadSanitizer reports
// --------------------------------------------------

__global__ void tile_read_before_the_wait(const float* in, float* o) {
  SIMT_SHARED(float4, a, [64]);
  SIMT_SHARED(TileBarrier, full, [1]);
  if (threadIdx.x == 0) {
    tile_barrier_init(full, 1);
    tile_barriers_ready();
    tile_expect(full, 1024);
    tile_load(a, in, 1024, full);
  }
  __syncthreads();
  o[64 * blockIdx.x + threadIdx.x] = a[threadIdx.x].x;
  tile_wait(full, 0);
}
__global__ void tile_overwrites_what_is_read(const float* in, float* o) {
  SIMT_SHARED(float4, a, [64]);
  SIMT_SHARED(TileBarrier, full, [1]);
  a[threadIdx.x] = make_float4(1, 1, 1, 1);
  async_proxy_fence();
  if (threadIdx.x == 0) {
    tile_barrier_init(full, 1);
    tile_barriers_ready();
  }
  __syncthreads();
  const float v = a[threadIdx.x].x;  // no barrier between this and the load
  if (threadIdx.x == 0) {
    tile_expect(full, 1024);
    tile_load(a, in, 1024, full);
  }
  tile_wait(full, 0);
  o[64 * blockIdx.x + threadIdx.x] = v + a[threadIdx.x].x;
}
__global__ void remote_read_without_a_barrier(float* o) {
  SIMT_SHARED(float, a, [64]);
  cluster_sync();
  a[threadIdx.x] = 2;
  o[64 * blockIdx.x + threadIdx.x] = *map_shared_rank(&a[threadIdx.x], cluster_rank() ^ 1u);
  cluster_sync();
}
__global__ void block_barrier_instead_of_the_cluster_s(float* o) {
  SIMT_SHARED(float, a, [64]);
  cluster_sync();
  a[threadIdx.x] = 2;
  __syncthreads();
  o[64 * blockIdx.x + threadIdx.x] = *map_shared_rank(&a[63 - threadIdx.x], cluster_rank() ^ 1u);
  cluster_sync();
}

// -- AddressSanitizer reports
// ------------------------------------------------------------------------

__global__ void remote_overflow(float* o) {
  SIMT_SHARED(float, a, [64]);
  a[threadIdx.x] = 2;
  cluster_sync();
  o[64 * blockIdx.x + threadIdx.x] = map_shared_rank(a, cluster_rank() ^ 1u)[threadIdx.x + 1];
  cluster_sync();
}

// -- correct: must stay silent
// ---------------------------------------------------------------------

__global__ void cluster_sum(float* o) {  // the sum of all threads' numbers, in every block
  SIMT_SHARED(float, part, [1]);
  SIMT_SHARED(float, lane_sums, [2]);
  const float v = warp_sum(static_cast<float>(threadIdx.x + 64 * cluster_rank()));
  if (threadIdx.x % 32 == 0) lane_sums[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x == 0) part[0] = lane_sums[0] + lane_sums[1];
  cluster_sync();
  float sum = 0;
  for (unsigned r = 0; r < cluster_size(); ++r) sum += *map_shared_rank(part, r);
  cluster_arrive();
  o[64 * blockIdx.x + threadIdx.x] = sum;
  cluster_wait();
}

}  // namespace SIMT_NS
}  // namespace retort::planted
