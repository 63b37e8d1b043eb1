// Weight gradient as an implicit GEMM: filters x (taps, channels), summed over output pixels in
// slices (split K). Every slice writes its own partial sums; a second kernel adds them in order.
#pragma once
#include "kernels/conv2d/conv2d.h"
#include "kernels/conv2d/conv2d_tile.cuh"

namespace retort::kernels {
namespace SIMT_NS {

template <class T>
struct WeightParams {
  const T* x;    // (N,H,W,C)
  const T* dy;   // (N,Ho,Wo,K)
  float* parts;  // (slices, K, R*S*C)
  int height, width, channels, filters, out_h, out_w, stride, padding;
  int columns;  // R * S * C
  int pixels;   // N * Ho * Wo
  int slice;    // pixels of a slice, a multiple of a tile's depth
  bool vector_dy;
  Divisor by_out_w, by_out_h, by_channels, by_filter_w;
};

// A block sums kRows filters x kColumns columns over one slice of the pixels. Both tiles lie by
// depth: a row of a tile is one pixel's channels, which is how x and dy are stored.
// Shared: 4 stages of (kRows + kColumns) * kTileDepth * sizeof(T) bytes.
// Launch: grid (columns / kColumns, filters / kRows, slices), 128 threads.
// kVector: x and dy are 16-byte aligned, their channels multiples of a chunk.
template <class T, int kRows, int kColumns, bool kVector>
__global__ void __launch_bounds__(kConvThreads)
    conv2d_weight_block_per_tile_kernel(WeightParams<T> p) {
  constexpr int kE = kChunkElements<T>, kDepth = kTileDepth<T>;
  constexpr int kChunksA = kRows / kE, kChunksB = kColumns / kE;
  constexpr int kTileA = kDepth * kChunksA * 16, kTileB = kDepth * kChunksB * 16;
  constexpr int kStage = kTileA + kTileB;
  constexpr int kLoadsA = kDepth * kChunksA / kConvThreads,
                kLoadsB = kDepth * kChunksB / kConvThreads;
  SIMT_DYNAMIC_SHARED(unsigned char, s_tiles);

  const int tid = static_cast<int>(threadIdx.x);
  const int filter0 = static_cast<int>(blockIdx.y) * kRows,
            column0 = static_cast<int>(blockIdx.x) * kColumns;
  const int begin = static_cast<int>(blockIdx.z) * p.slice,
            end = p.slice < p.pixels - begin ? begin + p.slice : p.pixels;

  // This thread's chunk of dy's filters, and of the columns: tap (r, s) and channel c.
  const int chunk_a = tid % kChunksA, chunk_b = tid % kChunksB;
  const int filter = filter0 + chunk_a * kE, column = column0 + chunk_b * kE;
  int c, s;
  const int tap = p.by_channels.divide(column, c), r = p.by_filter_w.divide(tap, s);
  const bool column_inside = column < p.columns;

  auto load = [&](int tile) {
    unsigned char* const s_a = s_tiles + tile % kConvStages * kStage;
    unsigned char* const s_b = s_a + kTileA;
    const int pixel0 = begin + tile * kDepth;
#pragma unroll
    for (int l = 0; l < kLoadsA; ++l) {
      const int row = tid / kChunksA + l * (kConvThreads / kChunksA), pixel = pixel0 + row;
      unsigned char* const to = s_a + tile_offset<kChunksA>(row, chunk_a);
      const bool inside = pixel < end && filter < p.filters;
      const std::int64_t at = inside ? std::int64_t{pixel} * p.filters + filter : 0;
      if (kVector || p.vector_dy) {
        cp_async16(to, p.dy + at, inside ? 16 : 0);
      } else {
        Chunk<T> values;
#pragma unroll
        for (int e = 0; e < kE; ++e)
          values.v[e] = inside && filter + e < p.filters ? p.dy[at + e] : from_float<T>(0.0f);
        *reinterpret_cast<Chunk<T>*>(to) = values;
      }
    }
#pragma unroll
    for (int l = 0; l < kLoadsB; ++l) {
      const int row = tid / kChunksB + l * (kConvThreads / kChunksB), pixel = pixel0 + row;
      unsigned char* const to = s_b + tile_offset<kChunksB>(row, chunk_b);
      int i, j;
      const int n = p.by_out_h.divide(p.by_out_w.divide(pixel, j), i);
      const int top = i * p.stride - p.padding, left = j * p.stride - p.padding;
      if constexpr (kVector) {
        const int y = top + r, x = left + s;
        const bool inside = pixel < end && column_inside &&
                            static_cast<unsigned>(y) < unsigned(p.height) &&
                            static_cast<unsigned>(x) < unsigned(p.width);
        const std::int64_t at =
            inside ? std::int64_t{(n * p.height + y) * p.width + x} * p.channels + c : 0;
        cp_async16(to, p.x + at, inside ? 16 : 0);
      } else {
        Chunk<T> values;
#pragma unroll
        for (int e = 0; e < kE; ++e) {
          int ce, se;
          const int tap_e = p.by_channels.divide(column + e, ce),
                    re = p.by_filter_w.divide(tap_e, se);
          const int y = top + re, x = left + se;
          const bool inside = pixel < end && column + e < p.columns &&
                              static_cast<unsigned>(y) < unsigned(p.height) &&
                              static_cast<unsigned>(x) < unsigned(p.width);
          values.v[e] = inside
                            ? p.x[std::int64_t{(n * p.height + y) * p.width + x} * p.channels + ce]
                            : from_float<T>(0.0f);
        }
        *reinterpret_cast<Chunk<T>*>(to) = values;
      }
    }
  };

  const int tiles = (end - begin + kDepth - 1) / kDepth;
  for (int t = 0; t < kConvStages - 1; ++t) {
    if (t < tiles) load(t);
    cp_async_commit();
  }
  TileProduct<T, kRows, kColumns> product;
  for (int t = 0; t < tiles; ++t) {
    cp_async_wait<kConvStages - 2>();
    __syncthreads();  // tile t has arrived, and tile t - 1 has been read by all
    if (t + kConvStages - 1 < tiles) load(t + kConvStages - 1);
    cp_async_commit();
    const unsigned char* const s_a = s_tiles + t % kConvStages * kStage;
    product.add_by_depth(s_a, s_a + kTileA);
  }
  cp_async_wait<0>();

  float* const part = p.parts + std::int64_t{blockIdx.z} * p.filters * p.columns;
  product.for_each([&](int row, int col, float sum) {
    if (filter0 + row < p.filters && column0 + col < p.columns)
      part[std::int64_t{filter0 + row} * p.columns + column0 + col] = sum;
  });
}

// One thread per weight, grid-stride: adds the slices in order.
// Shared: none. Launch: any grid, block a multiple of 32.
template <class W>
__global__ void __launch_bounds__(256)
    conv2d_sum_slices_thread_per_element_kernel(W* dweight, const float* parts, std::int64_t n,
                                                int slices) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    float sum = 0.0f;
    for (int k = 0; k < slices; ++k) sum += parts[k * n + i];
    dweight[i] = from_float<W>(sum);
  }
}

}  // namespace SIMT_NS
}  // namespace retort::kernels
