// The epilogue and the statistics of a convolution as passes of their own over y: for a provider
// that cannot do them while it still holds the sums.
#pragma once
#include "kernels/common/moments.cuh"
#include "kernels/conv2d/conv2d.h"

namespace retort::kernels {
namespace SIMT_NS {

// One thread per pack of V values, grid-stride: y := [relu](y + bias [+ residual]).
// Shared: none. Launch: any grid, block 256. V > 1: 16-byte aligned, filters a multiple of V.
template <class T, int V>
__global__ void __launch_bounds__(256)
    conv2d_epilogue_thread_per_pack_kernel(T* y, const T* residual, const float* bias,
                                           std::int64_t packs, int packs_per_row, bool relu) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < packs; i += step) {
    float v[V];
    load_vector<T, V>(y + i * V, v);
    if (bias != nullptr) {
      const int column = static_cast<int>(i % packs_per_row) * V;
#pragma unroll
      for (int j = 0; j < V; ++j) v[j] += bias[column + j];
    }
    if (residual != nullptr) {
      float e[V];
      load_vector<T, V>(residual + i * V, e);
#pragma unroll
      for (int j = 0; j < V; ++j) v[j] += e[j];
    }
    if (relu)
#pragma unroll
      for (int j = 0; j < V; ++j) v[j] = v[j] < 0.0f ? 0.0f : v[j];  // a NaN stays
    store_vector<T, V>(y + i * V, v);
  }
}

template <class T>
void finish_launch(const Context& context, const Conv2dArgs& args) {
  const std::int64_t filters = args.shape.filters, rows = args.shape.y_elements() / filters;
  const auto stream = static_cast<cudaStream_t>(context.stream);
  const bool aligned = aligned16(args.y) && aligned16(args.epilogue.residual);
  batch_norm_dispatch(args.dtype, filters, aligned, [&]<class U, int V>() {
    if constexpr (std::is_same_v<T, U>) {
      if (args.epilogue.any()) {
        const std::int64_t packs = rows * filters / V, blocks = (packs + 255) / 256;
        simt::launch({"conv2d_epilogue", dim3(static_cast<unsigned>(blocks < 8192 ? blocks : 8192)),
                      dim3(256), 0, stream},
                     conv2d_epilogue_thread_per_pack_kernel<T, V>, static_cast<T*>(args.y),
                     static_cast<const T*>(args.epilogue.residual),
                     static_cast<const float*>(args.epilogue.bias), packs,
                     static_cast<int>(filters / V), args.epilogue.relu);
      }
      if (args.statistics != nullptr) {
        const Conv2dChunks chunks = conv2d_statistics_chunks(args.shape, Device::kCuda);
        const BatchNormGrid g(rows, filters, V);
        simt::launch({"conv2d_statistics", dim3(static_cast<unsigned>(chunks.count), g.tiles),
                      dim3(kBatchNormThreads), 0, stream},
                     batch_norm_stats_column_tile_kernel<T, V>, static_cast<const T*>(args.y),
                     static_cast<float*>(args.statistics), rows, filters, chunks.rows, g.shift);
      }
    }
  });
}

}  // namespace SIMT_NS
}  // namespace retort::kernels
