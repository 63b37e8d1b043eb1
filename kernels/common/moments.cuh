// Batch norm's view of (R, C) on CUDA, and the moments of its columns: what the convolution needs
// of it too.
//
// Note [Column tiles]: every kernel sees (R, C) as tiles of 2^shift vectors of V channels by rows.
// A block of 256 threads has 2^shift threads across and 256 >> shift rows; a thread keeps its V
// channels and walks down the rows, so that per-channel constants and sums stay in registers. How
// rows are split between blocks follows from the sizes alone, and so does every sum's order.
#pragma once
#include "kernels/batch_norm/batch_norm.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

inline constexpr int kBatchNormThreads = 256;

template <class T, int V>
SIMT_D void load_vector(const T* p, accumulator_t<T> (&v)[V]) {
  if constexpr (V == 1) {
    v[0] = to_float(*p);
  } else if constexpr (std::is_same_v<T, float>) {
    const float4 q = *reinterpret_cast<const float4*>(p);
    v[0] = q.x, v[1] = q.y, v[2] = q.z, v[3] = q.w;
  } else {
    const bf16x8 q = *reinterpret_cast<const bf16x8*>(p);
#pragma unroll
    for (int k = 0; k < 4; ++k) v[2 * k] = to_float(q.v[k].lo), v[2 * k + 1] = to_float(q.v[k].hi);
  }
}
template <class T, int V>
SIMT_D void store_vector(T* p, const accumulator_t<T> (&v)[V]) {
  if constexpr (V == 1) {
    *p = from_float<T>(v[0]);
  } else if constexpr (std::is_same_v<T, float>) {
    *reinterpret_cast<float4*>(p) = make_float4(v[0], v[1], v[2], v[3]);
  } else {
    bf16x8 q;
#pragma unroll
    for (int k = 0; k < 4; ++k) q.v[k] = {to_bf16(v[2 * k]), to_bf16(v[2 * k + 1])};
    *reinterpret_cast<bf16x8*>(p) = q;
  }
}

// (n, mean, m2) := that of both sets (Chan). n_b may be 0.
template <class A>
SIMT_D void merge_moments(A n, A& mean, A& m2, A n_b, A mean_b, A m2_b) {
  if (n_b == A(0)) return;
  const A delta = mean_b - mean, share = n_b / (n + n_b);
  mean += delta * share;
  m2 += m2_b + delta * delta * n * share;
}

// Mean and centred sum of squares of each split of the rows.
// One block per (row split, column tile); a thread takes rows ty, ty + step, ... four at a time.
// Shared: 256 * (2 V + 1) accumulators: moments per thread, merged in a tree over ty.
// Launch: grid (splits, column tiles), block 256.
// partial: (splits, 2, C): mean, m2 of each split.
template <class T, int V>
__global__ void __launch_bounds__(kBatchNormThreads)
    batch_norm_stats_column_tile_kernel(const T* x, accumulator_t<T>* partial, std::int64_t rows,
                                        std::int64_t channels, std::int64_t rows_per_split,
                                        int shift) {
  using A = accumulator_t<T>;
  SIMT_SHARED(A, s_mean, [V][kBatchNormThreads]);
  SIMT_SHARED(A, s_m2, [V][kBatchNormThreads]);
  SIMT_SHARED(A, s_n, [kBatchNormThreads]);
  const int t = static_cast<int>(threadIdx.x), ty = t >> shift, step = kBatchNormThreads >> shift;
  const std::int64_t c = ((std::int64_t{blockIdx.y} << shift) + (t & ((1 << shift) - 1))) * V;
  const std::int64_t begin = std::int64_t{blockIdx.x} * rows_per_split;
  const std::int64_t end = begin + rows_per_split < rows ? begin + rows_per_split : rows;
  A n = 0, mean[V] = {}, m2[V] = {};
  if (c < channels) {
    std::int64_t r = begin + ty;
    for (; r + 3 * step < end; r += 4 * step) {
      A v[4][V];
#pragma unroll
      for (int k = 0; k < 4; ++k) load_vector<T, V>(x + (r + k * step) * channels + c, v[k]);
      const A share = A(4) / (n + A(4));
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const A m = (v[0][j] + v[1][j] + v[2][j] + v[3][j]) * A(0.25);
        const A e0 = v[0][j] - m, e1 = v[1][j] - m, e2 = v[2][j] - m, e3 = v[3][j] - m;
        const A delta = m - mean[j];
        mean[j] += delta * share;
        m2[j] += e0 * e0 + e1 * e1 + e2 * e2 + e3 * e3 + delta * delta * n * share;
      }
      n += A(4);
    }
    for (; r < end; r += step) {
      A v[V];
      load_vector<T, V>(x + r * channels + c, v);
#pragma unroll
      for (int j = 0; j < V; ++j) merge_moments(n, mean[j], m2[j], A(1), v[j], A(0));
      n += A(1);
    }
  }
#pragma unroll
  for (int j = 0; j < V; ++j) s_mean[j][t] = mean[j], s_m2[j][t] = m2[j];
  s_n[t] = n;
  for (int half = step / 2; half > 0; half /= 2) {
    __syncthreads();
    if (ty >= half) continue;
    const int other = t + (half << shift);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      merge_moments(n, mean[j], m2[j], s_n[other], s_mean[j][other], s_m2[j][other]);
      s_mean[j][t] = mean[j], s_m2[j][t] = m2[j];
    }
    n += s_n[other];
    s_n[t] = n;
  }
  if (ty != 0 || c >= channels) return;
  A* const to = partial + std::int64_t{blockIdx.x} * 2 * channels + c;
#pragma unroll
  for (int j = 0; j < V; ++j) to[j] = mean[j], to[channels + j] = m2[j];
}

// How (R, C) in vectors of V is spread over blocks; see Note [Column tiles].
struct BatchNormGrid {
  int shift = 0;
  unsigned tiles, chunks;
  int splits;
  std::int64_t rows_per_split;
  BatchNormGrid(std::int64_t rows, std::int64_t channels, int vector) {
    const std::int64_t across = channels / vector;
    while (shift < 5 && (1 << shift) < across) ++shift;
    const std::int64_t step = kBatchNormThreads >> shift;
    tiles = static_cast<unsigned>((across + (1 << shift) - 1) >> shift);
    chunks = static_cast<unsigned>((rows + 8 * step - 1) / (8 * step));
    rows_per_split = 4 * step;
    if (rows_per_split * 512 < rows) rows_per_split = (rows + 511) / 512;
    splits = static_cast<int>((rows + rows_per_split - 1) / rows_per_split);
  }
};

inline bool aligned16(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

// Calls f<T, V>() with 16-byte vectors where the sizes and pointers allow, else with V = 1.
template <class F>
void batch_norm_dispatch(DType dtype, std::int64_t channels, bool aligned, F&& f) {
  if (dtype == DType::kF32) {
    if (aligned && channels % 4 == 0) return f.template operator()<float, 4>();
    return f.template operator()<float, 1>();
  }
  if (dtype == DType::kBF16) {
    if (aligned && channels % 8 == 0) return f.template operator()<bf16, 8>();
    return f.template operator()<bf16, 1>();
  }
  fail(ErrorCode::kUsage, "expected f32 or bf16 on the cuda device, got ", name_of(dtype));
}

}  // namespace SIMT_NS
}  // namespace retort::kernels
