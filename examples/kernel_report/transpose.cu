// A matrix is transposed through shared memory, twice: with rows of 32 words, whose columns lie in
// one bank, and with one word more. `distill_bench ptx` shows the difference without a GPU;
// CONTRIBUTING.md reads the report.
#include <cuda_runtime.h>

#include <cstdio>
#include <vector>

template <int kPad>
__global__ void transpose(const float* from, float* to, int n) {
  __shared__ float tile[32][32 + kPad];
  const int x = 32 * blockIdx.x + threadIdx.x, y = 32 * blockIdx.y + threadIdx.y;
  for (int row = 0; row < 32; row += 8)
    tile[threadIdx.y + row][threadIdx.x] = from[(y + row) * n + x];
  __syncthreads();
  const int column = 32 * blockIdx.y + threadIdx.x, line = 32 * blockIdx.x + threadIdx.y;
  for (int row = 0; row < 32; row += 8)
    to[(line + row) * n + column] = tile[threadIdx.x][threadIdx.y + row];
}

int main() {
  constexpr int n = 64;
  std::vector<float> host(n * n), back(n * n);
  for (int i = 0; i < n * n; ++i) host[i] = static_cast<float>(i);
  float *from = nullptr, *to = nullptr;
  const std::size_t bytes = host.size() * sizeof(float);
  cudaMalloc(reinterpret_cast<void**>(&from), bytes);
  cudaMalloc(reinterpret_cast<void**>(&to), bytes);
  cudaMemcpy(from, host.data(), bytes, cudaMemcpyHostToDevice);
  int wrong = 0;
  for (const bool padded : {false, true}) {
    cudaMemset(to, 0, bytes);
    if (padded)
      transpose<1><<<dim3(n / 32, n / 32), dim3(32, 8)>>>(from, to, n);
    else
      transpose<0><<<dim3(n / 32, n / 32), dim3(32, 8)>>>(from, to, n);
    cudaMemcpy(back.data(), to, bytes, cudaMemcpyDeviceToHost);
    for (int i = 0; i < n * n; ++i) wrong += back[i] != host[i % n * n + i / n];
  }
  std::printf("%d wrong elements, %s\n", wrong, cudaGetErrorString(cudaGetLastError()));
  cudaFree(from);
  cudaFree(to);
  return wrong > 0;
}
