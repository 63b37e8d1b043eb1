// A short digest of a result, by which two implementations are compared (conv2d_device.h).
#pragma once
#include "kernels/conv2d/conv2d_device.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

// One warp per piece of 256 elements, grid-stride. Shared: none. Launch: any grid, block 256.
template <class T>
__global__ void __launch_bounds__(256)
    conv2d_fingerprint_warp_per_piece_kernel(const T* data, std::int64_t n, float* to) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t pieces = (n + 255) / 256, step = std::int64_t{gridDim.x} * (blockDim.x / 32);
  for (std::int64_t piece = std::int64_t{blockIdx.x} * (blockDim.x / 32) + threadIdx.x / 32;
       piece < pieces; piece += step) {
    float sum = 0.0f, size = 0.0f;
    for (int k = 0; k < 8; ++k) {
      const std::int64_t i = piece * 256 + k * 32 + lane;
      if (i >= n) break;
      const float v = to_float(data[i]);
      sum += static_cast<std::uint32_t>(i) * 0x9E3779B1u >> 31 ? -v : v;
      size += fabsf(v);
    }
    sum = warp_sum(sum), size = warp_sum(size);
    if (lane == 0) to[2 * piece] = sum, to[2 * piece + 1] = size;
  }
}

template <class T>
void fingerprint_launch(const Context& context, const T* data, std::int64_t n, float* to) {
  if (n == 0) return;
  const std::int64_t blocks = (conv2d_fingerprint_pieces(n) + 7) / 8;
  simt::launch({"conv2d_fingerprint", dim3(static_cast<unsigned>(blocks < 4096 ? blocks : 4096)),
                dim3(256), 0, static_cast<cudaStream_t>(context.stream)},
               conv2d_fingerprint_warp_per_piece_kernel<T>, data, n, to);
}

}  // namespace SIMT_NS
}  // namespace retort::kernels
