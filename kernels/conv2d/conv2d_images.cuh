// Forward pass and data gradient as one implicit GEMM: output pixels x columns, summed over the
// taps of the filter and the channels of the source.
//
// Note [Both directions are one gather]
//   forward   row (n, i, j) is output pixel (i, j);  tap (a, b) reads x at i*stride - padding + a
//   backward  row (n, i, j) is input pixel (ph + stride*i, pw + stride*j) of phase (ph, pw); the
//             taps that reach it are r = r0 + stride*a with r0 = (ph + padding) mod stride, and
//             read dy at i + (ph + padding - r0) / stride - a
// In both, the source pixel is i*scale + offset + a*step. Splitting the data gradient in
// stride^2 phases (blockIdx.z) leaves no product with a zero that the stride put there.
#pragma once
#include "kernels/conv2d/conv2d.h"
#include "kernels/conv2d/conv2d_epilogue.cuh"

namespace retort::kernels {
namespace SIMT_NS {

template <class T>
struct ImagesParams {
  const T* source;  // x (N,H,W,C), or dy (N,Ho,Wo,K)
  const T* weight;  // per phase: (columns, pitch) with the source's channels innermost
  int batch, source_h, source_w, source_c, out_h, out_w;
  int filter_h, filter_w, stride, padding;
  int pitch;  // elements between columns of weight, a multiple of a chunk
  bool backward;
  Divisor by_source_c;
  TileOutput<T> output;  // y, or dx
};

struct Axis {
  int rows, taps, first_tap, scale, offset, step;
};
SIMT_HD Axis axis_of(bool backward, int phase, int out, int filter, int stride, int padding) {
  if (!backward) return {out, filter, 0, stride, -padding, 1};
  const int first = (phase + padding) % stride;
  return {(out - phase + stride - 1) / stride,
          first < filter ? (filter - first + stride - 1) / stride : 0,
          first,
          1,
          (phase + padding - first) / stride,
          -1};
}

template <class T>
struct PackParams {
  T* to;
  const void* weight;  // (K, R, S, C)
  int filters, filter_h, filter_w, channels, stride, padding, pitch;
  bool backward;
};

// A block packs 32 columns x 32 elements of one phase through shared memory: neighbouring threads
// read neighbouring channels of the weights and write neighbouring elements of a column, whichever
// of the two the columns are.
// Shared: 32 * 33 floats. Launch: grid (pitch / 32, columns / 32, phases), block 256.
template <class T, class W>
__global__ void __launch_bounds__(256) conv2d_pack_block_per_tile_kernel(PackParams<T> p) {
  SIMT_SHARED(float, s_tile, [32][33]);
  const int phase = static_cast<int>(blockIdx.z), across = static_cast<int>(threadIdx.x) % 32,
            down = static_cast<int>(threadIdx.x) / 32;
  const Axis h = axis_of(p.backward, phase / p.stride, 1, p.filter_h, p.stride, p.padding);
  const Axis w = axis_of(p.backward, phase % p.stride, 1, p.filter_w, p.stride, p.padding);
  const int columns = p.backward ? p.channels : p.filters;
  const int inner = p.backward ? p.filters : p.channels;
  const int k0 = static_cast<int>(blockIdx.x) * 32, column0 = static_cast<int>(blockIdx.y) * 32;
  const W* const weight = static_cast<const W*>(p.weight);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int d = down + 8 * i;
    const int column = p.backward ? across : d, k = p.backward ? d : across;
    const int tap = (k0 + k) / inner, c = (k0 + k) - tap * inner;
    float value = 0.0f;
    if (tap < h.taps * w.taps && column0 + column < columns) {
      const int by = p.backward ? p.stride : 1;
      const int r = h.first_tap + tap / w.taps * by, s = w.first_tap + tap % w.taps * by;
      const int filter = p.backward ? c : column0 + column,
                channel = p.backward ? column0 + column : c;
      value =
          to_float(weight[((std::int64_t{filter} * p.filter_h + r) * p.filter_w + s) * p.channels +
                          channel]);
    }
    s_tile[k][column] = value;
  }
  __syncthreads();
  T* const to = p.to + std::int64_t{phase} * columns * p.pitch;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int d = down + 8 * i;
    if (column0 + d < columns && k0 + across < p.pitch)
      to[std::int64_t{column0 + d} * p.pitch + k0 + across] = from_float<T>(s_tile[across][d]);
  }
}

// The pixel of out that row `row` of a phase is, -1 past the end.
template <class T>
SIMT_D int pixel_of(const ImagesParams<T>& p, const Axis& h, const Axis& w, int phase_h,
                    int phase_w, int row, int rows) {
  const int j = row % w.rows, i = row / w.rows % h.rows, n = row / w.rows / h.rows,
            by = p.backward ? p.stride : 1;
  return row < rows ? (n * p.out_h + phase_h + by * i) * p.out_w + phase_w + by * j : -1;
}

// The first pixel of the row's image in source, and where in it tap (0, 0) of the row lies.
template <class T>
SIMT_D void source_of(const ImagesParams<T>& p, const Axis& h, const Axis& w, int row, int rows,
                      int& image, int& top, int& left) {
  const int j = row % w.rows, i = row / w.rows % h.rows, n = row / w.rows / h.rows;
  image = n * p.source_h * p.source_w;
  top = row < rows ? i * h.scale + h.offset : -(1 << 30);  // a row outside reads zeros
  left = j * w.scale + w.offset;
}

// A block computes 128 rows x kColumns columns; thread t brings chunk t % 4 of rows t/4 + 32 i of
// both operands, four tiles ahead.
// Shared: 4 stages of (128 + kColumns) * 64 bytes, reused for the result.
// Launch: grid (rows of the largest phase / 128, columns / kColumns, phases), 128 threads.
// kVector: the source is 16-byte aligned and its channels are a multiple of a chunk.
template <class T, int kColumns, bool kVector>
__global__ void __launch_bounds__(kConvThreads)
    conv2d_images_block_per_tile_kernel(ImagesParams<T> p) {
  constexpr int kRows = 128, kE = kChunkElements<T>, kDepth = kTileDepth<T>;
  constexpr int kTileA = kRows * 64, kTileB = kColumns * 64, kStage = kTileA + kTileB;
  constexpr int kLoadsA = kRows / 32, kLoadsB = kColumns / 32;
  SIMT_DYNAMIC_SHARED(unsigned char, s_tiles);
  SIMT_SHARED(int, s_pixel, [kRows]);

  const int phase = static_cast<int>(blockIdx.z), tid = static_cast<int>(threadIdx.x);
  const int phase_h = p.backward ? phase / p.stride : 0,
            phase_w = p.backward ? phase % p.stride : 0;
  const Axis h = axis_of(p.backward, phase_h, p.out_h, p.filter_h, p.stride, p.padding);
  const Axis w = axis_of(p.backward, phase_w, p.out_w, p.filter_w, p.stride, p.padding);
  const int rows = p.batch * h.rows * w.rows;
  const int row0 = static_cast<int>(blockIdx.x) * kRows,
            column0 = static_cast<int>(blockIdx.y) * kColumns;
  if (row0 >= rows) return;  // the whole block: another phase has more rows
  const int depth = h.taps * w.taps * p.source_c;
  const T* const weight = p.weight + std::int64_t{phase} * p.output.columns * p.pitch;

  s_pixel[tid] = pixel_of(p, h, w, phase_h, phase_w, row0 + tid, rows);
  const int chunk = tid % 4;
  int image[kLoadsA], top[kLoadsA], left[kLoadsA];
#pragma unroll
  for (int l = 0; l < kLoadsA; ++l)
    source_of(p, h, w, row0 + tid / 4 + 32 * l, rows, image[l], top[l], left[l]);
  // The tap and channel of this thread's chunk in the next tile to load (vector path).
  int tap_h = 0, tap_w = 0, channel = chunk * kE;
  auto carry = [&] {
    while (channel >= p.source_c && tap_h < h.taps) {
      channel -= p.source_c;
      if (++tap_w >= w.taps) tap_w = 0, ++tap_h;
    }
  };
  if constexpr (kVector) carry();

  auto load = [&](int tile) {
    unsigned char* const s_a = s_tiles + tile % kConvStages * kStage;
    unsigned char* const s_b = s_a + kTileA;
    const int k = tile * kDepth + chunk * kE;
    if constexpr (kVector) {
      const int dh = tap_h * h.step, dw = tap_w * w.step;
#pragma unroll
      for (int l = 0; l < kLoadsA; ++l) {
        const int y = top[l] + dh, x = left[l] + dw;
        const bool inside = k < depth && static_cast<unsigned>(y) < unsigned(p.source_h) &&
                            static_cast<unsigned>(x) < unsigned(p.source_w);
        const std::int64_t at =
            inside ? std::int64_t{image[l] + y * p.source_w + x} * p.source_c + channel : 0;
        cp_async16(s_a + tile_offset<kTileChunks>(tid / 4 + 32 * l, chunk), p.source + at,
                   inside ? 16 : 0);
      }
      channel += kDepth;
      carry();
    } else {
      Chunk<T> values[kLoadsA];
#pragma unroll
      for (int e = 0; e < kE; ++e) {
        int c, tap = p.by_source_c.divide(k + e, c);
        const int dh = k + e < depth ? tap / w.taps * h.step : -(1 << 30),
                  dw = k + e < depth ? tap % w.taps * w.step : 0;
#pragma unroll
        for (int l = 0; l < kLoadsA; ++l) {
          const int y = top[l] + dh, x = left[l] + dw;
          const bool inside = static_cast<unsigned>(y) < unsigned(p.source_h) &&
                              static_cast<unsigned>(x) < unsigned(p.source_w);
          values[l].v[e] =
              inside ? p.source[std::int64_t{image[l] + y * p.source_w + x} * p.source_c + c]
                     : from_float<T>(0.0f);
        }
      }
#pragma unroll
      for (int l = 0; l < kLoadsA; ++l)
        *reinterpret_cast<Chunk<T>*>(s_a + tile_offset<kTileChunks>(tid / 4 + 32 * l, chunk)) =
            values[l];
    }
#pragma unroll
    for (int l = 0; l < kLoadsB; ++l) {
      const int column = tid / 4 + 32 * l;
      const bool inside = k < depth && column0 + column < p.output.columns;
      const std::int64_t at = inside ? std::int64_t{column0 + column} * p.pitch + k : 0;
      cp_async16(s_b + tile_offset<kTileChunks>(column, chunk), weight + at, inside ? 16 : 0);
    }
  };

  const int tiles = (depth + kDepth - 1) / kDepth;
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
    product.add_by_rows(s_a, s_a + kTileA);
  }
  cp_async_wait<0>();
  __syncthreads();

  static_assert(finish_tile_bytes<T, kRows, kColumns, kConvThreads>() <= kConvStages * kStage);
  finish_tile<T, kRows, kColumns, kConvThreads>(product, s_tiles, s_pixel,
                                                rows - row0 < kRows ? rows - row0 : kRows, column0,
                                                static_cast<int>(blockIdx.x), p.output);
}

}  // namespace SIMT_NS
}  // namespace retort::kernels
