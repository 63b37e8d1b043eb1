// CUDA kernels of batch_norm and their launch configuration; see Note [Column tiles].
#pragma once
#include "kernels/common/moments.cuh"

namespace retort::kernels {
namespace SIMT_NS {

inline constexpr int kFinishRows = 16;

// Merges the moments of `group` consecutive chunks of rows_per_chunk rows into one, in order: a
// convolution leaves a chunk per tile, far too many for one block to finish.
// One thread per (group, channel). Shared: none. Launch: grid (groups, ceil(C / 256)), block 256.
template <class A>
__global__ void __launch_bounds__(kBatchNormThreads)
    batch_norm_merge_chunks_kernel(const A* chunks, A* merged, std::int64_t rows,
                                   std::int64_t channels, std::int64_t rows_per_chunk, int group) {
  const std::int64_t c = std::int64_t{blockIdx.y} * kBatchNormThreads + threadIdx.x;
  if (c >= channels) return;
  const std::int64_t count = (rows + rows_per_chunk - 1) / rows_per_chunk;
  const std::int64_t begin = std::int64_t{blockIdx.x} * group;
  const std::int64_t end = begin + group < count ? begin + group : count;
  A n = 0, mean = 0, m2 = 0;
#pragma unroll 4
  for (std::int64_t k = begin; k < end; ++k) {
    const std::int64_t left = rows - k * rows_per_chunk;
    const A n_b = static_cast<A>(left < rows_per_chunk ? left : rows_per_chunk);
    const A* const from = chunks + k * 2 * channels + c;
    merge_moments(n, mean, m2, n_b, from[0], from[channels]);
    n += n_b;
  }
  A* const to = merged + std::int64_t{blockIdx.x} * 2 * channels + c;
  to[0] = mean, to[channels] = m2;
}

// One block per 32 channels; 16 threads of a channel share the splits, then merge in a tree.
// Shared: 3 * 512 accumulators. Launch: grid ceil(C / 32), block 512.
template <class A>
__global__ void __launch_bounds__(32 * kFinishRows)
    batch_norm_finish_stats_kernel(const A* partial, int splits, std::int64_t rows_per_split,
                                   std::int64_t rows, std::int64_t channels, A* mean_out,
                                   A* rstd_out, A* running_mean, A* running_var, A momentum,
                                   A epsilon) {
  SIMT_SHARED(A, s_mean, [kFinishRows][32]);
  SIMT_SHARED(A, s_m2, [kFinishRows][32]);
  SIMT_SHARED(A, s_n, [kFinishRows][32]);
  const int tx = static_cast<int>(threadIdx.x) % 32, ty = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t c = std::int64_t{blockIdx.x} * 32 + tx;
  A n = 0, mean = 0, m2 = 0;
  if (c < channels)
    for (int s = ty; s < splits; s += kFinishRows) {
      const std::int64_t left = rows - s * rows_per_split;
      const A n_b = static_cast<A>(left < rows_per_split ? left : rows_per_split);
      const A* const from = partial + std::int64_t{s} * 2 * channels + c;
      merge_moments(n, mean, m2, n_b, from[0], from[channels]);
      n += n_b;
    }
  s_mean[ty][tx] = mean, s_m2[ty][tx] = m2, s_n[ty][tx] = n;
  for (int half = kFinishRows / 2; half > 0; half /= 2) {
    __syncthreads();
    if (ty >= half) continue;
    merge_moments(n, mean, m2, s_n[ty + half][tx], s_mean[ty + half][tx], s_m2[ty + half][tx]);
    n += s_n[ty + half][tx];
    s_mean[ty][tx] = mean, s_m2[ty][tx] = m2, s_n[ty][tx] = n;
  }
  if (ty != 0 || c >= channels) return;
  mean_out[c] = mean;
  rstd_out[c] = A(1) / sqrt(m2 / n + epsilon);
  if (running_mean == nullptr) return;
  running_mean[c] = (A(1) - momentum) * running_mean[c] + momentum * mean;
  running_var[c] =
      (A(1) - momentum) * running_var[c] + momentum * (m2 / (n > A(1) ? n - A(1) : A(1)));
}

// One block per (row chunk, column tile); a thread writes its V channels of up to 8 rows.
// Outside training the first row chunk also writes mean and rstd, for the backward pass.
// Shared: none. Launch: grid (row chunks, column tiles), block 256.
template <class T, int V>
__global__ void __launch_bounds__(kBatchNormThreads) batch_norm_apply_column_tile_kernel(
    const T* x, const T* residual, T* y, const accumulator_t<T>* weight,
    const accumulator_t<T>* bias, const accumulator_t<T>* running_mean,
    const accumulator_t<T>* running_var, accumulator_t<T>* mean_in_out,
    accumulator_t<T>* rstd_in_out, std::int64_t rows, std::int64_t channels, int shift,
    bool training, bool relu, accumulator_t<T> epsilon) {
  using A = accumulator_t<T>;
  const int t = static_cast<int>(threadIdx.x), ty = t >> shift, step = kBatchNormThreads >> shift;
  const std::int64_t c = ((std::int64_t{blockIdx.y} << shift) + (t & ((1 << shift) - 1))) * V;
  if (c >= channels) return;
  A mean[V], scale[V], offset[V];
#pragma unroll
  for (int j = 0; j < V; ++j) {
    A rstd;
    if (training) {
      mean[j] = mean_in_out[c + j];
      rstd = rstd_in_out[c + j];
    } else {
      mean[j] = running_mean[c + j];
      rstd = A(1) / sqrt(running_var[c + j] + epsilon);
      if (blockIdx.x == 0 && ty == 0) mean_in_out[c + j] = mean[j], rstd_in_out[c + j] = rstd;
    }
    scale[j] = rstd * weight[c + j];
    offset[j] = bias[c + j];
  }
  const std::int64_t first = std::int64_t{blockIdx.x} * 8 * step + ty;
#pragma unroll 4
  for (int k = 0; k < 8; ++k) {
    const std::int64_t r = first + std::int64_t{k} * step;
    if (r >= rows) break;
    const std::int64_t i = r * channels + c;
    A v[V];
    load_vector<T, V>(x + i, v);
#pragma unroll
    for (int j = 0; j < V; ++j) v[j] = fmaf(v[j] - mean[j], scale[j], offset[j]);
    if (residual != nullptr) {
      A e[V];
      load_vector<T, V>(residual + i, e);
#pragma unroll
      for (int j = 0; j < V; ++j) v[j] += e[j];
    }
    if (relu)
#pragma unroll
      for (int j = 0; j < V; ++j) v[j] = v[j] < A(0) ? A(0) : v[j];  // a NaN stays
    store_vector<T, V>(y + i, v);
  }
}

// Where relu stops the gradient: by y, or (y null) by the forward formula, the same fmaf as there,
// or (both null) nowhere. g holds dy, e holds x - mean.
template <class T, int V>
SIMT_D void batch_norm_mask(const T* y, std::int64_t i, bool from_x, const accumulator_t<T> (&e)[V],
                            const accumulator_t<T> (&scale)[V], const accumulator_t<T> (&offset)[V],
                            accumulator_t<T> (&g)[V]) {
  using A = accumulator_t<T>;
  if (y != nullptr) {
    A out[V];
    load_vector<T, V>(y + i, out);
#pragma unroll
    for (int j = 0; j < V; ++j) g[j] = out[j] > A(0) ? g[j] : A(0);
  } else if (from_x) {
#pragma unroll
    for (int j = 0; j < V; ++j) g[j] = fmaf(e[j], scale[j], offset[j]) > A(0) ? g[j] : A(0);
  }
}

// As batch_norm_stats, for sum of g and sum of g * (x - mean); writes g where it is wanted.
// Shared: 256 * 2 V accumulators. partial: (splits, 2, C).
template <class T, int V>
__global__ void __launch_bounds__(kBatchNormThreads) batch_norm_backward_sums_column_tile_kernel(
    const T* dy, const T* x, const T* y, const accumulator_t<T>* weight,
    const accumulator_t<T>* bias, const accumulator_t<T>* mean_in, const accumulator_t<T>* rstd,
    T* dresidual, accumulator_t<T>* partial, std::int64_t rows, std::int64_t channels,
    std::int64_t rows_per_split, int shift) {
  using A = accumulator_t<T>;
  SIMT_SHARED(A, s_g, [V][kBatchNormThreads]);
  SIMT_SHARED(A, s_gx, [V][kBatchNormThreads]);
  const int t = static_cast<int>(threadIdx.x), ty = t >> shift, step = kBatchNormThreads >> shift;
  const std::int64_t c = ((std::int64_t{blockIdx.y} << shift) + (t & ((1 << shift) - 1))) * V;
  const std::int64_t begin = std::int64_t{blockIdx.x} * rows_per_split;
  const std::int64_t end = begin + rows_per_split < rows ? begin + rows_per_split : rows;
  A sum_g[V] = {}, sum_gx[V] = {};
  if (c < channels) {
    A mean[V], scale[V], offset[V];
#pragma unroll
    for (int j = 0; j < V; ++j) {
      mean[j] = mean_in[c + j];
      scale[j] = bias != nullptr ? rstd[c + j] * weight[c + j] : A(0);
      offset[j] = bias != nullptr ? bias[c + j] : A(0);
    }
#pragma unroll 2
    for (std::int64_t r = begin + ty; r < end; r += step) {
      const std::int64_t i = r * channels + c;
      A g[V], e[V];
      load_vector<T, V>(dy + i, g);
      load_vector<T, V>(x + i, e);
#pragma unroll
      for (int j = 0; j < V; ++j) e[j] -= mean[j];
      batch_norm_mask<T, V>(y, i, bias != nullptr, e, scale, offset, g);
      if (dresidual != nullptr) store_vector<T, V>(dresidual + i, g);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        sum_g[j] += g[j];
        sum_gx[j] += g[j] * e[j];
      }
    }
  }
#pragma unroll
  for (int j = 0; j < V; ++j) s_g[j][t] = sum_g[j], s_gx[j][t] = sum_gx[j];
  for (int half = step / 2; half > 0; half /= 2) {
    __syncthreads();
    if (ty >= half) continue;
    const int other = t + (half << shift);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      s_g[j][t] = sum_g[j] += s_g[j][other];
      s_gx[j][t] = sum_gx[j] += s_gx[j][other];
    }
  }
  if (ty != 0 || c >= channels) return;
  A* const to = partial + std::int64_t{blockIdx.x} * 2 * channels + c;
#pragma unroll
  for (int j = 0; j < V; ++j) to[j] = sum_g[j], to[channels + j] = sum_gx[j];
}

// One block per 32 channels, as batch_norm_finish_stats. factors: (2, C): what dx needs.
template <class A>
__global__ void __launch_bounds__(32 * kFinishRows)
    batch_norm_finish_backward_kernel(const A* partial, int splits, std::int64_t rows,
                                      std::int64_t channels, const A* weight, const A* rstd,
                                      A* dweight, A* dbias, A* factors, bool training) {
  SIMT_SHARED(A, s_g, [kFinishRows][32]);
  SIMT_SHARED(A, s_gx, [kFinishRows][32]);
  const int tx = static_cast<int>(threadIdx.x) % 32, ty = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t c = std::int64_t{blockIdx.x} * 32 + tx;
  A sum_g = 0, sum_gx = 0;
  if (c < channels)
    for (int s = ty; s < splits; s += kFinishRows) {
      sum_g += partial[std::int64_t{s} * 2 * channels + c];
      sum_gx += partial[(std::int64_t{s} * 2 + 1) * channels + c];
    }
  s_g[ty][tx] = sum_g, s_gx[ty][tx] = sum_gx;
  for (int half = kFinishRows / 2; half > 0; half /= 2) {
    __syncthreads();
    if (ty >= half) continue;
    s_g[ty][tx] = sum_g += s_g[ty + half][tx];
    s_gx[ty][tx] = sum_gx += s_gx[ty + half][tx];
  }
  if (ty != 0 || c >= channels) return;
  const A r = rstd[c], dw = r * sum_gx, scale = r * weight[c];
  dweight[c] = dw;
  dbias[c] = sum_g;
  factors[c] = training ? -scale * r * dw / static_cast<A>(rows) : A(0);
  factors[channels + c] = training ? -scale * sum_g / static_cast<A>(rows) : A(0);
}

// dx = a * g + b * (x - mean) + c: as batch_norm_apply.
template <class T, int V>
__global__ void __launch_bounds__(kBatchNormThreads) batch_norm_backward_apply_column_tile_kernel(
    const T* dy, const T* x, const T* y, const accumulator_t<T>* weight,
    const accumulator_t<T>* bias, const accumulator_t<T>* mean_in, const accumulator_t<T>* rstd,
    const accumulator_t<T>* factors, T* dx, std::int64_t rows, std::int64_t channels, int shift) {
  using A = accumulator_t<T>;
  const int t = static_cast<int>(threadIdx.x), ty = t >> shift, step = kBatchNormThreads >> shift;
  const std::int64_t col = ((std::int64_t{blockIdx.y} << shift) + (t & ((1 << shift) - 1))) * V;
  if (col >= channels) return;
  A mean[V], a[V], offset[V], b[V], c[V];
#pragma unroll
  for (int j = 0; j < V; ++j) {
    mean[j] = mean_in[col + j];
    a[j] = rstd[col + j] * weight[col + j];
    offset[j] = bias != nullptr ? bias[col + j] : A(0);
    b[j] = factors[col + j];
    c[j] = factors[channels + col + j];
  }
  const std::int64_t first = std::int64_t{blockIdx.x} * 8 * step + ty;
#pragma unroll 2
  for (int k = 0; k < 8; ++k) {
    const std::int64_t r = first + std::int64_t{k} * step;
    if (r >= rows) break;
    const std::int64_t i = r * channels + col;
    A g[V], e[V];
    load_vector<T, V>(dy + i, g);
    load_vector<T, V>(x + i, e);
#pragma unroll
    for (int j = 0; j < V; ++j) e[j] -= mean[j];
    batch_norm_mask<T, V>(y, i, bias != nullptr, e, a, offset, g);
#pragma unroll
    for (int j = 0; j < V; ++j) g[j] = a[j] * g[j] + (b[j] * e[j] + c[j]);
    store_vector<T, V>(dx + i, g);
  }
}

// (count, 2, C): mean and centred sum of squares of chunks of `rows` rows.
struct MomentChunks {
  const void* data;
  int count;
  std::int64_t rows;
};

template <class T, int V>
MomentChunks moments_of(const Context& context, const BatchNormArgs& args, const BatchNormGrid& g) {
  using A = accumulator_t<T>;
  A* const partial =
      static_cast<A*>(context.scratch->get(static_cast<std::size_t>(g.splits) * 2 *
                                           static_cast<std::size_t>(args.channels) * sizeof(A)));
  simt::launch({"batch_norm_stats", dim3(static_cast<unsigned>(g.splits), g.tiles),
                dim3(kBatchNormThreads), 0, static_cast<cudaStream_t>(context.stream)},
               batch_norm_stats_column_tile_kernel<T, V>, static_cast<const T*>(args.x), partial,
               args.rows, args.channels, g.rows_per_split, g.shift);
  return {partial, g.splits, g.rows_per_split};
}

// The given statistics, brought down to at most 256 chunks.
template <class A>
MomentChunks merged_moments(const Context& context, const BatchNormArgs& args) {
  const std::int64_t count = (args.rows + args.statistics_rows - 1) / args.statistics_rows;
  const std::int64_t group = (count + 255) / 256, groups = (count + group - 1) / group;
  if (group == 1) return {args.statistics, static_cast<int>(count), args.statistics_rows};
  A* const merged = static_cast<A*>(
      context.scratch->get(static_cast<std::size_t>(groups * 2 * args.channels) * sizeof(A)));
  simt::launch(
      {"batch_norm_merge_chunks",
       dim3(static_cast<unsigned>(groups),
            static_cast<unsigned>((args.channels + kBatchNormThreads - 1) / kBatchNormThreads)),
       dim3(kBatchNormThreads), 0, static_cast<cudaStream_t>(context.stream)},
      batch_norm_merge_chunks_kernel<A>, static_cast<const A*>(args.statistics), merged, args.rows,
      args.channels, args.statistics_rows, static_cast<int>(group));
  return {merged, static_cast<int>(groups), group * args.statistics_rows};
}

}  // namespace SIMT_NS

inline void batch_norm_launch(const Context& context, const BatchNormArgs& args) {
  using namespace SIMT_NS;
  const bool aligned = aligned16(args.x) && aligned16(args.residual) && aligned16(args.y);
  batch_norm_dispatch(args.dtype, args.channels, aligned, [&]<class T, int V>() {
    using A = accumulator_t<T>;
    const auto stream = static_cast<cudaStream_t>(context.stream);
    const BatchNormGrid g(args.rows, args.channels, V);
    const T* const x = static_cast<const T*>(args.x);
    A *const mean = static_cast<A*>(args.mean), *const rstd = static_cast<A*>(args.rstd);
    A* const running_mean = static_cast<A*>(args.running_mean);
    A* const running_var = static_cast<A*>(args.running_var);
    const A epsilon = static_cast<A>(args.epsilon);
    if (args.training) {
      const MomentChunks moments =
          args.statistics ? merged_moments<A>(context, args) : moments_of<T, V>(context, args, g);
      simt::launch(
          {"batch_norm_finish_stats", dim3(static_cast<unsigned>((args.channels + 31) / 32)),
           dim3(32 * kFinishRows), 0, stream},
          batch_norm_finish_stats_kernel<A>, static_cast<const A*>(moments.data), moments.count,
          moments.rows, args.rows, args.channels, mean, rstd, running_mean, running_var,
          static_cast<A>(args.momentum), epsilon);
    }
    // An empty batch still writes mean and rstd: one block with no rows.
    simt::launch({"batch_norm_apply", dim3(g.chunks == 0 ? 1 : g.chunks, g.tiles),
                  dim3(kBatchNormThreads), 0, stream},
                 batch_norm_apply_column_tile_kernel<T, V>, x, static_cast<const T*>(args.residual),
                 static_cast<T*>(args.y), static_cast<const A*>(args.weight),
                 static_cast<const A*>(args.bias), running_mean, running_var, mean, rstd, args.rows,
                 args.channels, g.shift, args.training, args.relu, epsilon);
  });
}

inline void batch_norm_backward_launch(const Context& context, const BatchNormBackwardArgs& args) {
  using namespace SIMT_NS;
  const bool aligned = aligned16(args.dy) && aligned16(args.x) && aligned16(args.y) &&
                       aligned16(args.dx) && aligned16(args.dresidual);
  batch_norm_dispatch(args.dtype, args.channels, aligned, [&]<class T, int V>() {
    using A = accumulator_t<T>;
    const auto stream = static_cast<cudaStream_t>(context.stream);
    const BatchNormGrid g(args.rows, args.channels, V);
    const T *const x = static_cast<const T*>(args.x), *const dy = static_cast<const T*>(args.dy);
    const T* const y = args.relu ? static_cast<const T*>(args.y) : nullptr;
    const A* const weight = static_cast<const A*>(args.weight);
    // The mask's second source; not used where the first pass leaves the masked gradient.
    const A* const bias = args.relu && y == nullptr ? static_cast<const A*>(args.bias) : nullptr;
    const A* const mean = static_cast<const A*>(args.mean);
    const A* const rstd = static_cast<const A*>(args.rstd);
    T* const dresidual = static_cast<T*>(args.dresidual);
    A* const factors =
        static_cast<A*>(context.scratch->get((static_cast<std::size_t>(g.splits) + 1) * 2 *
                                             static_cast<std::size_t>(args.channels) * sizeof(A)));
    A* const partial = factors + 2 * args.channels;
    if (g.splits > 0)
      simt::launch({"batch_norm_backward_sums", dim3(static_cast<unsigned>(g.splits), g.tiles),
                    dim3(kBatchNormThreads), 0, stream},
                   batch_norm_backward_sums_column_tile_kernel<T, V>, dy, x, y, weight, bias, mean,
                   rstd, dresidual, partial, args.rows, args.channels, g.rows_per_split, g.shift);
    simt::launch(
        {"batch_norm_finish_backward", dim3(static_cast<unsigned>((args.channels + 31) / 32)),
         dim3(32 * kFinishRows), 0, stream},
        batch_norm_finish_backward_kernel<A>, partial, g.splits, args.rows, args.channels, weight,
        rstd, static_cast<A*>(args.dweight), static_cast<A*>(args.dbias), factors,
        args.training && args.rows > 0);
    if (args.dx == nullptr || g.chunks == 0) return;
    // The masked gradient was just written where a residual wants it: one read instead of two.
    const bool masked = dresidual != nullptr;
    simt::launch(
        {"batch_norm_backward_apply", dim3(g.chunks, g.tiles), dim3(kBatchNormThreads), 0, stream},
        batch_norm_backward_apply_column_tile_kernel<T, V>, masked ? dresidual : dy, x,
        masked ? nullptr : y, weight, bias, mean, rstd, factors, static_cast<T*>(args.dx),
        args.rows, args.channels, g.shift);
  });
}

}  // namespace retort::kernels
