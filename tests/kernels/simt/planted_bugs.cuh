// Kernels with one planted bug each: what reports it is tested in faults_test.cpp (the emulator by
// itself) and planted_bug.cpp (a sanitizer).
#pragma once
#include "kernels/simt/tensor_core.h"

namespace retort::planted {
namespace SIMT_NS {
using namespace simt;

__global__ void divergent_barrier(float* o) {
  if (threadIdx.x < 48)
    __syncthreads();
  else
    __syncthreads();
  o[threadIdx.x] = 1;
}
__global__ void early_exit(float* o) {
  if (threadIdx.x == 5) return;
  __syncthreads();
  o[threadIdx.x] = 1;
}
__global__ void half_warp_shuffle(float* o) {
  float v = static_cast<float>(threadIdx.x);
  if (threadIdx.x < 16)
    v += __shfl_xor_sync(~0u, v, 8);
  else
    v += __shfl_xor_sync(~0u, v, 4);
  o[threadIdx.x] = v;
}
__global__ void wrong_mask(float* o) {
  float v = static_cast<float>(threadIdx.x);
  if (threadIdx.x % 2) v = __shfl_sync(0x55555555u, v, 0);
  o[threadIdx.x] = v;
}
__global__ void one_lane_missing(float* o) {  // lane 3 waits in the barrier, the others in shfl
  float v = 1;
  if (threadIdx.x != 3) v = warp_sum(v);
  __syncthreads();
  o[threadIdx.x] = v;
}
__global__ void shared_overflow(float* o) {
  SIMT_SHARED(float, a, [32]);
  float* p = a;            // hides the bound from the compiler
  p[threadIdx.x + 1] = 2;  // thread 31 writes a[32]
  __syncthreads();
  o[threadIdx.x] = p[threadIdx.x];
}
__global__ void uninitialised(float* o) {
  SIMT_SHARED(float, a, [33]);
  a[threadIdx.x] = 1;
  __syncthreads();
  const float v = a[threadIdx.x + 1];  // a[32] was never written
  o[threadIdx.x] = v > 0 ? v : -v;
}
__global__ void missing_barrier(float* o) {
  SIMT_SHARED(float, a, [64]);
  a[threadIdx.x] = static_cast<float>(threadIdx.x);
  o[threadIdx.x] = a[63 - threadIdx.x];
}
__global__ void missing_syncwarp(float* o) {  // shuffles do not order shared memory
  SIMT_SHARED(float, a, [32]);
  a[threadIdx.x] = 1;
  const float v = __shfl_sync(~0u, 1.f, 0);
  o[threadIdx.x] = v + a[31 - threadIdx.x];
}
__global__ void cross_block_race(float* o) {
  if (threadIdx.x == blockIdx.x) o[0] = o[0] + 1;
}
__global__ void cross_block_atomic(float* o) { atomicAdd(o, 1.f); }  // correct
__global__ void misaligned_vector(float* o) {
  const float4 v = *reinterpret_cast<const float4*>(o + 1 + threadIdx.x);
  o[threadIdx.x] = v.x + v.w;
}
__global__ void global_overflow(float* o) { o[threadIdx.x + 1024] = 1; }
__global__ void no_wait(const float* in, float* o) {
  SIMT_SHARED(float4, a, [32]);
  cp_async16(&a[threadIdx.x], in + 4 * threadIdx.x);
  cp_async_commit();
  __syncthreads();
  o[threadIdx.x] = a[threadIdx.x].x;
  cp_async_wait<0>();
}
__global__ void never_waits(const float* in, float*) {
  SIMT_SHARED(float4, a, [32]);
  cp_async16(&a[threadIdx.x], in + 4 * threadIdx.x);
  cp_async_commit();
}
__global__ void too_much_shared(float* o) {
  SIMT_SHARED(float, a, [1024]);
  a[threadIdx.x] = 0;
  o[threadIdx.x] = a[threadIdx.x];
}
__global__ void too_much_static_shared(float* o) {
  SIMT_SHARED(float, a, [12 * 1024 + 1]);
  a[threadIdx.x] = 0;
  o[threadIdx.x] = a[threadIdx.x];
}
// 128 bytes of static shared memory: the dynamic array comes 1,024 bytes from the beginning.
__global__ void little_static_shared(float* o) {
  SIMT_DYNAMIC_SHARED(float, tile);
  SIMT_SHARED(float, a, [32]);
  tile[threadIdx.x] = a[threadIdx.x] = 1;
  o[threadIdx.x] = a[threadIdx.x] + tile[threadIdx.x];
}
__global__ void bank_conflicts(float* o) {
  SIMT_SHARED(bf16, a, [64 * 64]);
  for (int i = static_cast<int>(threadIdx.x); i < 64 * 64; i += 32) a[i] = bf16{0};
  __syncwarp();
  std::uint32_t r[4];
  ldmatrix_x4(r, a + (threadIdx.x % 16) * 64 + threadIdx.x / 16 * 8);  // no swizzle: 8-way
  o[threadIdx.x] = static_cast<float>(r[0]);
}
__global__ void load_conflicts(float* o) {
  SIMT_SHARED(float4, a, [32 * 8]);
  for (int i = static_cast<int>(threadIdx.x); i < 32 * 8; i += 32) a[i] = float4{1, 2, 3, 4};
  __syncwarp();
  const int lane = static_cast<int>(threadIdx.x);
  float sum = load_shared16(a + lane).x;     // neighbours: none
  sum += load_shared16(a + lane / 8).y;      // eight lanes read one place: none
  sum += load_shared16(a + lane * 8).z;      // one column of 8-chunk rows: 7 more turns a quarter
  sum += load_shared16(a + lane / 2 * 8).w;  // four places a quarter: 3 more
  o[lane] = sum;
}
__global__ void last_block(float* part, unsigned* ticket, float* o) {  // correct: must stay silent
  SIMT_SHARED(int, last, [1]);
  if (threadIdx.x == 0) {
    part[blockIdx.x] = static_cast<float>(blockIdx.x + 1);
    __threadfence();
    last[0] = atomicAdd(ticket, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (last[0] && threadIdx.x == 0) {
    __threadfence();
    float s = 0;
    for (unsigned i = 0; i < gridDim.x; ++i) s += part[i];
    *o = s;
  }
}
// Groups of four lanes, each meeting once by its own mask: one group may meet while another is only
// half there.
__global__ void groups_meet_apart(float* o) {  // correct: must stay silent
  SIMT_SHARED(float, a, [8]);
  const unsigned lane = threadIdx.x, group = lane & ~3u;
  a[lane] = static_cast<float>(lane);
  __syncwarp(0xfu << group);
  o[lane] = a[group + (lane + 1) % 4];
}
// Each thread appends itself: the order is the schedule.
__global__ void arrival_order(unsigned* order, unsigned* next) {
  order[atomicAdd(next, 1u)] = threadIdx.x;
}

}  // namespace SIMT_NS
}  // namespace retort::planted
