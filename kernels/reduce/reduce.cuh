// CUDA kernels of the sums and their launch configuration. No atomics: partial sums go to scratch
// and are added in order by a second launch, so results repeat bit for bit.
#pragma once
#include "kernels/reduce/reduce.h"
#include "kernels/simt/pack.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

inline constexpr int kSumThreads = 256;
inline constexpr std::int64_t kMaxPartials = 1024;

// The sum of x[0 .. n) by all threads of the block, complete in thread 0. Each thread keeps one
// accumulator per element of a pack. first and step count packs.
template <class T, int kWidth>
SIMT_D double strided_sum(const T* x, std::int64_t n, std::int64_t first, std::int64_t step,
                          double* slots) {
  using A = accumulator_t<T>;
  A lane[kWidth] = {};
  const std::int64_t packs = n / kWidth;
  for (std::int64_t i = first; i < packs; i += step) {
    const auto in = load_pack<kWidth>(x + i * kWidth);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) lane[k] += to_float(in.v[k]);
  }
  for (std::int64_t i = packs * kWidth + first; i < n; i += step) lane[0] += to_float(x[i]);
  double sum = 0;
#pragma unroll
  for (int k = 0; k < kWidth; ++k) sum += static_cast<double>(lane[k]);
  return block_sum(sum, slots);
}

// Block b adds every gridDim-th pack of a flat array into partial[b].
// Shared: 8 doubles. Launch: grid of any size, block 256.
template <class T, int kWidth>
__global__ void __launch_bounds__(kSumThreads)
    sum_block_per_slice_kernel(double* partial, const T* x, std::int64_t n) {
  SIMT_SHARED(double, slots, [kSumThreads / 32]);
  const double sum =
      strided_sum<T, kWidth>(x, n, std::int64_t{blockIdx.x} * kSumThreads + threadIdx.x,
                             std::int64_t{gridDim.x} * kSumThreads, slots);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// Block b adds row b, b + gridDim, ... of a pitched matrix: into y (rows wanted), or into
// partial[b] (all of them wanted).
// Shared: 8 doubles. Launch: any grid, block 256.
template <class T, int kWidth>
__global__ void __launch_bounds__(kSumThreads)
    sum_block_per_row_kernel(T* y, double* partial, const T* x, std::int64_t rows,
                             std::int64_t columns, std::int64_t pitch, double factor) {
  SIMT_SHARED(double, slots, [kSumThreads / 32]);
  double total = 0;
  for (std::int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    const double sum =
        strided_sum<T, kWidth>(x + r * pitch, columns, threadIdx.x, kSumThreads, slots);
    __syncthreads();  // slots are written again for the next row
    if (threadIdx.x != 0) continue;
    if (partial)
      total += sum;
    else
      y[r] = from_float<T>(static_cast<accumulator_t<T>>(factor * sum));
  }
  if (partial && threadIdx.x == 0) partial[blockIdx.x] = total;
}

// One warp per row, grid-stride, for rows too short to feed a block.
// Shared: none. Launch: any grid, block 256.
template <class T>
__global__ void __launch_bounds__(kSumThreads)
    sum_warp_per_row_kernel(T* y, const T* x, std::int64_t rows, std::int64_t columns,
                            std::int64_t pitch, double factor) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t step = std::int64_t{gridDim.x} * (kSumThreads / 32);
  for (std::int64_t r = std::int64_t{blockIdx.x} * (kSumThreads / 32) + threadIdx.x / 32; r < rows;
       r += step) {
    accumulator_t<T> mine = 0;
    for (std::int64_t c = lane; c < columns; c += 32) mine += to_float(x[r * pitch + c]);
    double sum = static_cast<double>(mine);
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) sum += __shfl_xor_sync(~0u, sum, d);
    if (lane == 0) y[r] = from_float<T>(static_cast<accumulator_t<T>>(factor * sum));
  }
}

// y[0] = factor * sum of the partials, in a fixed order.
// Shared: 8 doubles. Launch: one block of 256.
template <class T>
__global__ void __launch_bounds__(kSumThreads)
    sum_finish_one_block_kernel(T* y, const double* partial, std::int64_t n, double factor) {
  SIMT_SHARED(double, slots, [kSumThreads / 32]);
  double mine = 0;
  for (std::int64_t i = threadIdx.x; i < n; i += kSumThreads) mine += partial[i];
  const double sum = block_sum(mine, slots);
  if (threadIdx.x == 0) y[0] = from_float<T>(static_cast<accumulator_t<T>>(factor * sum));
}

// Block (x, y): 32 columns times one band of rows; warp w takes rows w, w + 8, ... of the band, so
// that a warp reads 32 neighbours. partial[band, column].
// Shared: 8 x 32 doubles. Launch: grid (ceil(columns / 32), bands), block 256.
template <class T>
__global__ void __launch_bounds__(kSumThreads)
    sum_block_per_band_kernel(double* partial, const T* x, std::int64_t rows, std::int64_t columns,
                              std::int64_t pitch, std::int64_t band) {
  SIMT_SHARED(double, part, [kSumThreads / 32][32]);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t c = std::int64_t{blockIdx.x} * 32 + lane;
  const std::int64_t begin = std::int64_t{blockIdx.y} * band,
                     end = begin + band < rows ? begin + band : rows;
  accumulator_t<T> mine = 0;
  if (c < columns)
    for (std::int64_t r = begin + warp; r < end; r += kSumThreads / 32)
      mine += to_float(x[r * pitch + c]);
  part[warp][lane] = static_cast<double>(mine);
  __syncthreads();
  if (warp != 0 || c >= columns) return;
  double sum = 0;
  for (int w = 0; w < kSumThreads / 32; ++w) sum += part[w][lane];
  partial[blockIdx.y * columns + c] = sum;
}

// y[c] = factor * sum over bands. One thread per column.
template <class T>
__global__ void __launch_bounds__(kSumThreads)
    sum_bands_thread_per_column_kernel(T* y, const double* partial, std::int64_t bands,
                                       std::int64_t columns, double factor) {
  const std::int64_t c = std::int64_t{blockIdx.x} * kSumThreads + threadIdx.x;
  if (c >= columns) return;
  double sum = 0;
  for (std::int64_t b = 0; b < bands; ++b) sum += partial[b * columns + c];
  y[c] = from_float<T>(static_cast<accumulator_t<T>>(factor * sum));
}

// One thread per element of a row; blockIdx.y strides over rows.
template <class T, Sum kKind>
__global__ void __launch_bounds__(kSumThreads)
    expand_thread_per_element_kernel(T* y, const T* x, std::int64_t rows, std::int64_t columns,
                                     accumulator_t<T> factor) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t r = blockIdx.y; r < rows; r += gridDim.y)
#pragma unroll 1
    for (std::int64_t c = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; c < columns;
         c += step) {
      const std::int64_t from = kKind == Sum::kAll ? 0 : (kKind == Sum::kRows ? r : c);
      y[r * columns + c] = from_float<T>(factor * to_float(x[from]));
    }
}

/// Blocks that share a flat sum of n elements: from n alone, so that the order is.
inline unsigned partials_for(std::int64_t n) {
  const std::int64_t blocks = (n + kSumThreads * 16 - 1) / (kSumThreads * 16);
  return static_cast<unsigned>(blocks < 1 ? 1 : (blocks < kMaxPartials ? blocks : kMaxPartials));
}

template <class T>
void sum_all_launch(const Context& context, const SumArgs& args) {
  constexpr int kW = 16 / sizeof(T);
  const auto stream = static_cast<cudaStream_t>(context.stream);
  T* const y = static_cast<T*>(args.y);
  const T* const x = static_cast<const T*>(args.x);
  const std::int64_t n = args.rows * args.columns;
  unsigned partials = partials_for(n);
  double* const partial = static_cast<double*>(context.scratch->get(kMaxPartials * sizeof(double)));
  if (args.rows <= 1 || args.pitch == args.columns) {
    if (packs_aligned<kW>(x))
      simt::launch({"sum", partials, kSumThreads, 0, stream}, sum_block_per_slice_kernel<T, kW>,
                   partial, x, n);
    else
      simt::launch({"sum", partials, kSumThreads, 0, stream}, sum_block_per_slice_kernel<T, 1>,
                   partial, x, n);
  } else {
    partials = static_cast<unsigned>(args.rows < kMaxPartials ? args.rows : kMaxPartials);
    simt::launch({"sum", partials, kSumThreads, 0, stream}, sum_block_per_row_kernel<T, 1>, nullptr,
                 partial, x, args.rows, args.columns, args.pitch, 1.0);
  }
  simt::launch({"sum", 1, kSumThreads, 0, stream}, sum_finish_one_block_kernel<T>, y, partial,
               std::int64_t{partials}, args.factor);
}

template <class T>
void sum_rows_launch(const Context& context, const SumArgs& args) {
  constexpr int kW = 16 / sizeof(T);
  const auto stream = static_cast<cudaStream_t>(context.stream);
  T* const y = static_cast<T*>(args.y);
  const T* const x = static_cast<const T*>(args.x);
  if (args.columns <= 1024) {
    simt::launch({"sum_rows", blocks_for(args.rows, 1, kSumThreads / 32), kSumThreads, 0, stream},
                 sum_warp_per_row_kernel<T>, y, x, args.rows, args.columns, args.pitch,
                 args.factor);
    return;
  }
  const unsigned blocks = blocks_for(args.rows, 1, 1);
  if (packs_aligned<kW>(x) && args.pitch % kW == 0)
    simt::launch({"sum_rows", blocks, kSumThreads, 0, stream}, sum_block_per_row_kernel<T, kW>, y,
                 nullptr, x, args.rows, args.columns, args.pitch, args.factor);
  else
    simt::launch({"sum_rows", blocks, kSumThreads, 0, stream}, sum_block_per_row_kernel<T, 1>, y,
                 nullptr, x, args.rows, args.columns, args.pitch, args.factor);
}

/// Rows of a band of a column sum: at least 64, and at most 256 bands.
inline std::int64_t band_of(std::int64_t rows) {
  const std::int64_t band = (rows + 255) / 256;
  return band < 64 ? 64 : band;
}

template <class T>
void sum_columns_launch(const Context& context, const SumArgs& args) {
  const auto stream = static_cast<cudaStream_t>(context.stream);
  const std::int64_t band = band_of(args.rows);
  const std::int64_t bands = args.rows == 0 ? 0 : (args.rows + band - 1) / band;
  double* const partial = static_cast<double*>(
      context.scratch->get(static_cast<std::size_t>(bands * args.columns + 1) * sizeof(double)));
  if (bands > 0)
    simt::launch(
        {"column_sum",
         dim3(static_cast<unsigned>((args.columns + 31) / 32), static_cast<unsigned>(bands)),
         kSumThreads, 0, stream},
        sum_block_per_band_kernel<T>, partial, static_cast<const T*>(args.x), args.rows,
        args.columns, args.pitch, band);
  simt::launch({"column_sum", static_cast<unsigned>((args.columns + kSumThreads - 1) / kSumThreads),
                kSumThreads, 0, stream},
               sum_bands_thread_per_column_kernel<T>, static_cast<T*>(args.y), partial, bands,
               args.columns, args.factor);
}

}  // namespace SIMT_NS

inline void sum_launch(const Context& context, const SumArgs& args) {
  using namespace SIMT_NS;
  dispatch_float(args.dtype, "sum", [&]<class T>() {
    switch (args.kind) {
      case Sum::kAll: return sum_all_launch<T>(context, args);
      case Sum::kRows: return sum_rows_launch<T>(context, args);
      case Sum::kColumns: return sum_columns_launch<T>(context, args);
    }
  });
}

inline void expand_launch(const Context& context, const ExpandArgs& args) {
  using namespace SIMT_NS;
  // One scalar for all: as one long row.
  const std::int64_t rows = args.kind == Sum::kAll ? 1 : args.rows,
                     columns = args.kind == Sum::kAll ? args.rows * args.columns : args.columns;
  const simt::LaunchConfig config{
      "expand", dim3(blocks_for(columns, 1), static_cast<unsigned>(rows < 65535 ? rows : 65535)),
      kSumThreads, 0, static_cast<cudaStream_t>(context.stream)};
  dispatch_float(args.dtype, "expand", [&]<class T>() {
    const auto run = [&](auto kernel) {
      simt::launch(config, kernel, static_cast<T*>(args.y), static_cast<const T*>(args.x), rows,
                   columns, static_cast<accumulator_t<T>>(args.factor));
    };
    switch (args.kind) {
      case Sum::kAll: return run(expand_thread_per_element_kernel<T, Sum::kAll>);
      case Sum::kRows: return run(expand_thread_per_element_kernel<T, Sum::kRows>);
      case Sum::kColumns: return run(expand_thread_per_element_kernel<T, Sum::kColumns>);
    }
  });
}

}  // namespace retort::kernels
