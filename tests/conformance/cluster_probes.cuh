// Clusters, distributed shared memory and bulk copies: one question each, as in probes.cuh.
#pragma once
#include "kernels/simt/cluster.h"
#include "kernels/simt/simt.h"
#include "kernels/simt/tile.h"

namespace retort::probes {
namespace SIMT_NS {
using namespace simt;

inline constexpr int kClusterWords = 5;

// Who am I, what the others hold, what the left neighbour wrote here, and a value that passes
// through the two halves of the barrier. out[(block * 64 + t) * 5 ..]. Launch: a multiple of the
// cluster size, blocks of 64, 256 bytes of dynamic shared memory.
__global__ void cluster_probe(std::uint32_t* out) {
  SIMT_SHARED(std::uint32_t, mine, [64]);
  SIMT_SHARED(std::uint32_t, gift, [64]);
  SIMT_DYNAMIC_SHARED(std::uint32_t, dynamic);
  const unsigned t = threadIdx.x, rank = cluster_rank(), size = cluster_size();
  std::uint32_t* const o = out + (blockIdx.x * 64 + t) * kClusterWords;
  mine[t] = blockIdx.x * 1000 + t;
  dynamic[t] = blockIdx.x * 77 + t * t;
  cluster_sync();
  std::uint32_t sum = 0, xored = 0;
  for (unsigned r = 0; r < size; ++r) {
    sum += map_shared_rank(mine, r)[(t + r) % 64] * (r + 1);
    xored ^= map_shared_rank(&dynamic[63 - t], r)[0] << r;
  }
  map_shared_rank(gift, (rank + 1) % size)[t] = rank * 100 + t;
  cluster_sync();
  o[0] = rank | size << 8;
  o[1] = sum;
  o[2] = xored;
  o[3] = gift[t];
  mine[t] = gift[63 - t];
  cluster_arrive();
  o[4] = t;
  cluster_wait();
  o[4] += *map_shared_rank(&mine[t], size - 1 - rank);
  cluster_sync();
}

inline void run_cluster_probe(std::uint32_t* out, unsigned size) {
  simt::launch({"cluster_probe", 2 * size, 64, 256, nullptr, size}, cluster_probe, out);
}

// Two phases of one barrier: two pieces, then one over the first of them. out[t], out[256 + t].
// in: 512 words, 16-byte aligned. Launch: 1 block of 256.
__global__ void tile_probe(std::uint32_t* out, const std::uint32_t* in) {
  SIMT_SHARED(uint4, buffer, [64]);
  SIMT_SHARED(TileBarrier, full, [1]);
  std::uint32_t* const words = reinterpret_cast<std::uint32_t*>(buffer);
  const unsigned t = threadIdx.x;
  if (t == 0) {
    tile_barrier_init(full, 1);
    tile_barriers_ready();
    tile_expect(full, 1024);
    tile_load(words, in + 256, 512, full);
    tile_load(words + 128, in, 512, full);
  }
  __syncthreads();
  tile_wait(full, 0);
  out[t] = words[255 - t];
  __syncthreads();
  if (t == 32) {
    tile_expect(full, 16);
    tile_load(words + 4, in + 508, 16, full);
  }
  tile_wait(full, 1);
  out[256 + t] = words[t];
}

// Of each pair of neighbours. Launch: any.
__global__ void max_bf16_probe(std::uint32_t* out, const std::uint32_t* in, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = max_bf16x2(in[i], in[(i + 1) % n]);
}

}  // namespace SIMT_NS
}  // namespace retort::probes
