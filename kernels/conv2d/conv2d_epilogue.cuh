// What a block does with a finished tile of y (or dx) while it still holds the sums: bias, residual
// and ReLU, the statistics that batch norm wants, and stores of 16 bytes.
#pragma once
#include "kernels/conv2d/conv2d_tile.cuh"

namespace retort::kernels {
namespace SIMT_NS {

template <class T>
struct TileOutput {
  T* out;             // (pixels, columns)
  const T* residual;  // as out, or null
  const float* bias;  // (columns), or null
  float* statistics;  // (row tiles, 2, columns), or null
  int columns;        // channels of out
  bool relu, vector;  // vector: out and residual are 16-byte aligned, columns whole chunks
};

// Note [Statistics of a tile]
//   A tile's rows are one chunk of conv2d_statistics_chunks. They are taken from the tile as it
//   lies in shared memory, rounded: thread (group g, word w) runs over rows g, g + groups, ... of
//   the channels in 4-byte word w, first for the mean, then for the squares about that mean (so
//   nothing cancels); the groups are merged in order by Chan's formula. A warp reads 32
//   neighbouring words: no bank conflict from 64 columns of bf16 or 32 of f32 on.
template <class T, int kRows, int kColumns, int kThreads>
SIMT_D void tile_statistics(const T* s_out, float* s_parts, int rows, int column0, int chunk,
                            const TileOutput<T>& p) {
  constexpr int kV = 4 / static_cast<int>(sizeof(T));  // channels of a word
  constexpr int kPitch = kColumns + kChunkElements<T>, kWords = kColumns / kV;
  constexpr int kGroups = kThreads / kWords;
  static_assert(kThreads % kWords == 0 && kRows % kGroups == 0);
  const int word = static_cast<int>(threadIdx.x) % kWords,
            group = static_cast<int>(threadIdx.x) / kWords;
  const auto each_row = [&](auto&& f) {
#pragma unroll 8
    for (int r = group; r < rows; r += kGroups) {
      const T* const from = s_out + r * kPitch + word * kV;
      if constexpr (kV == 2) {
        const bf16x2 pair = *reinterpret_cast<const bf16x2*>(from);
        f(0, to_float(pair.lo)), f(1, to_float(pair.hi));
      } else {
        f(0, to_float(*from));
      }
    }
  };
  const auto count_of = [&](int g) { return rows > g ? (rows - g + kGroups - 1) / kGroups : 0; };
  const int own = count_of(group);
  float mean[kV] = {}, m2[kV] = {};
  each_row([&](int j, float v) { mean[j] += v; });
#pragma unroll
  for (int j = 0; j < kV; ++j) mean[j] = own > 0 ? mean[j] / static_cast<float>(own) : 0.0f;
  each_row([&](int j, float v) { m2[j] += (v - mean[j]) * (v - mean[j]); });
#pragma unroll
  for (int j = 0; j < kV; ++j) {
    float* const to = s_parts + (group * kColumns + word * kV + j) * 2;
    to[0] = mean[j], to[1] = m2[j];
  }
  __syncthreads();
  for (int c = static_cast<int>(threadIdx.x); c < kColumns; c += kThreads) {
    if (column0 + c >= p.columns) continue;
    float n = 0.0f, all_mean = 0.0f, all_m2 = 0.0f;
    for (int g = 0; g < kGroups && g < rows; ++g) {
      const float* const part = s_parts + (g * kColumns + c) * 2;
      const auto n_b = static_cast<float>(count_of(g));
      const float delta = part[0] - all_mean, share = n_b / (n + n_b);
      all_mean += delta * share;
      all_m2 += part[1] + delta * delta * n * share;
      n += n_b;
    }
    float* const to = p.statistics + std::int64_t{chunk} * 2 * p.columns + column0 + c;
    to[0] = all_mean, to[p.columns] = all_m2;
  }
}

/// Bytes of shared memory that finish_tile uses, from s_tile on.
template <class T, int kRows, int kColumns, int kThreads>
constexpr int finish_tile_bytes() {
  const int out = kRows * (kColumns + kChunkElements<T>)*static_cast<int>(sizeof(T));
  return out + kThreads * (4 / static_cast<int>(sizeof(T))) * 2 * 4;  // and the groups' statistics
}

// Row r of the tile goes to pixel s_pixel[r], or nowhere if that is negative; `rows` rows are real.
// The caller's last barrier lies behind its last read of s_tile.
template <class T, int kRows, int kColumns, int kThreads, class Product>
SIMT_D void finish_tile(Product& product, unsigned char* s_tile, const int* s_pixel, int rows,
                        int column0, int chunk, const TileOutput<T>& p) {
  constexpr int kE = kChunkElements<T>, kPitch = kColumns + kE, kChunks = kColumns / kE;
  T* const s_out = reinterpret_cast<T*>(s_tile);
  const int tid = static_cast<int>(threadIdx.x);
  // f(place in shared memory, global index, elements of the chunk that exist) for every chunk.
  const auto each_chunk = [&](auto&& f) {
    for (int i = tid; i < kRows * kChunks; i += kThreads) {
      const int row = i / kChunks, column = i % kChunks * kE, pixel = s_pixel[row];
      if (pixel < 0 || column0 + column >= p.columns) continue;
      const int left = p.columns - column0 - column;
      f(s_out + row * kPitch + column, std::int64_t{pixel} * p.columns + column0 + column,
        left < kE ? left : kE);
    }
  };
  const auto copy = [&](T* to, const T* from, int elements) {
    if (p.vector) {
      *reinterpret_cast<Chunk<T>*>(to) = *reinterpret_cast<const Chunk<T>*>(from);
    } else {
      for (int e = 0; e < elements; ++e) to[e] = from[e];
    }
  };

  if (p.bias != nullptr)
    product.add_to_columns(
        [&](int column) { return column0 + column < p.columns ? p.bias[column0 + column] : 0.0f; });
  if (p.residual != nullptr) {
    // finish() reads every place: zeros where the tile has no pixel or no column.
    if (rows < kRows || column0 + kColumns > p.columns)
      for (int i = tid; i < kRows * kChunks; i += kThreads)
        *reinterpret_cast<Chunk<T>*>(s_out + i / kChunks * kPitch + i % kChunks * kE) = Chunk<T>{};
    each_chunk([&](T* s, std::int64_t at, int n) { copy(s, p.residual + at, n); });
    __syncthreads();
  }
  const auto finish = [&](float sum, const T* residual) {
    if (p.residual != nullptr) sum += to_float(*residual);
    return p.relu && sum < 0.0f ? 0.0f : sum;  // a NaN stays
  };
  if constexpr (sizeof(T) == 2) {
    product.for_each_pair([&](int row, int column, float lo, float hi) {
      T* const to = s_out + row * kPitch + column;
      *reinterpret_cast<std::uint32_t*>(to) = pack_bf16(finish(lo, to), finish(hi, to + 1));
    });
  } else {
    product.for_each([&](int row, int column, float sum) {
      T* const to = s_out + row * kPitch + column;
      *to = from_float<T>(finish(sum, to));
    });
  }
  __syncthreads();
  each_chunk([&](const T* s, std::int64_t at, int n) { copy(p.out + at, s, n); });
  if (p.statistics != nullptr)
    tile_statistics<T, kRows, kColumns, kThreads>(
        s_out, reinterpret_cast<float*>(s_tile + kRows * kPitch * sizeof(T)), rows, column0, chunk,
        p);
}

}  // namespace SIMT_NS
}  // namespace retort::kernels
