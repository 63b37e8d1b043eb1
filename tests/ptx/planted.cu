// Kernels with a bug each: "planted: TEXT" stands on the line that `distill_bench ptx` must name in
// a hazard that says TEXT, "conflict: N" on one whose shared accesses take N times the passes that
// they could. Those whose names begin with right_ have none. planted.sh asks.
#include <cuda_runtime.h>

#include <cstdio>

__global__ void bank_conflict(const float* in, float* out) {
  __shared__ float tile[32 * 32];
  for (int row = 0; row < 32; ++row) tile[row * 32 + threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  float sum = 0;
  for (int column = 0; column < 32; ++column)
    sum += tile[threadIdx.x * 32 + column];  // conflict: 32
  out[threadIdx.x] = sum;
}

__global__ void lost_updates(int* out) {
  __shared__ int n;
  if (threadIdx.x == 0) n = 0;
  __syncthreads();
  n += threadIdx.x;  // planted: race: this read of shared memory
  __syncthreads();
  out[threadIdx.x] = n;
}

__global__ void no_barrier(float* out) {
  __shared__ float s[64];
  s[threadIdx.x] = 1;
  out[threadIdx.x] = s[threadIdx.x ^ 1];  // planted: race: this read of shared memory
}

__global__ void never_written(float* out) {
  __shared__ float s[64];
  if (threadIdx.x < 40) s[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];  // planted: is read before it was written
}

__global__ void counters_never_written(int* out) {
  __shared__ int count[32];
  atomicAdd(&count[threadIdx.x % 32], 1);  // planted: reads shared memory at 0x400 before it was
  __syncthreads();
  if (threadIdx.x < 32) out[threadIdx.x] = count[threadIdx.x];
}

__global__ void counters_without_barrier(int* out) {
  __shared__ int count[32];
  if (threadIdx.x < 32) count[threadIdx.x] = 0;
  __syncthreads();
  atomicAdd(&count[threadIdx.x % 8], 1);
  if (threadIdx.x < 32) out[threadIdx.x] = count[threadIdx.x];  // planted: and an atomic access by
}

__global__ void counters_written_late(int* out) {
  __shared__ int count[32];
  if (threadIdx.x < 32) count[threadIdx.x] = 0;
  atomicAdd(&count[31 - threadIdx.x % 32], 1);  // planted: and a write by
  __syncthreads();
  if (threadIdx.x < 32) out[threadIdx.x] = count[threadIdx.x];
}

__global__ void right_counters(int* out) {
  __shared__ int count[32];
  if (threadIdx.x < 32) atomicExch(&count[threadIdx.x], 0);
  __syncthreads();
  atomicAdd(&count[threadIdx.x % 32], 1);
  __syncthreads();
  if (threadIdx.x < 32) out[threadIdx.x] = count[threadIdx.x];
}

__global__ void beyond_shared(float* out) {
  __shared__ float s[32];
  s[threadIdx.x] = 1;  // planted: the launch failed.*thread (32,0,0).*the block has
  __syncthreads();
  out[threadIdx.x] = s[0];
}

__global__ void half_a_barrier(float* out) {
  if (threadIdx.x < 32) __syncthreads();  // planted: the launch failed.*at a barrier
  out[threadIdx.x] = 1;
}

__global__ void beyond_global(const float* in, float* out, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = in[i + 1];  // planted: the launch failed.*thread (63,0,0).*(0 bytes behind
}

int main() {
  constexpr int kThreads = 64;
  void *in = nullptr, *out = nullptr;
  cudaMalloc(&in, kThreads * sizeof(float));
  cudaMalloc(&out, kThreads * sizeof(float));
  cudaMemset(in, 0, kThreads * sizeof(float));
  auto* const floats = static_cast<float*>(out);
  auto* const ints = static_cast<int*>(out);
  bank_conflict<<<1, 32>>>(static_cast<float*>(in), floats);
  lost_updates<<<1, kThreads>>>(ints);
  no_barrier<<<1, kThreads>>>(floats);
  never_written<<<1, kThreads>>>(floats);
  counters_never_written<<<1, kThreads>>>(ints);
  counters_without_barrier<<<1, kThreads>>>(ints);
  counters_written_late<<<1, kThreads>>>(ints);
  right_counters<<<1, kThreads>>>(ints);
  std::printf("told: %s\n", cudaGetErrorString(cudaDeviceSynchronize()));
  beyond_shared<<<1, kThreads>>>(floats);
  half_a_barrier<<<1, kThreads>>>(floats);
  cudaGetLastError();
  beyond_global<<<1, kThreads>>>(static_cast<float*>(in), floats, kThreads);
  // A program that asks only here must hear of it.
  std::printf("refused: %s\n", cudaDeviceSynchronize() == cudaSuccess ? "no" : "yes");
  cudaGetLastError();
  std::printf("taken: %s\n", cudaGetErrorString(cudaDeviceSynchronize()));
}
