// CUDA kernels of the segment ops and their launch configuration.
#pragma once
#include "kernels/segment_sum/segment_sum.h"
#include "kernels/simt/pack.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

inline constexpr int kSegmentThreads = 256, kSegmentWarps = kSegmentThreads / 32;
inline constexpr std::int64_t kSegmentNarrow = 8;  // fewer columns: lanes go over rows

struct Segment {
  std::int64_t begin, end;  // within [0, rows], begin <= end
};
SIMT_D Segment segment_of(const std::int32_t* starts, std::int64_t s, std::int64_t rows) {
  std::int64_t begin = starts[s], end = starts[s + 1];
  begin = begin < 0 ? 0 : begin > rows ? rows : begin;
  end = end < begin ? begin : end > rows ? rows : end;
  return {begin, end};
}

template <class A>
SIMT_D A segment_factor(bool mean, const Segment& segment) {
  const std::int64_t n = segment.end - segment.begin;
  return mean && n > 0 ? A(1) / static_cast<A>(n) : A(1);
}

/// The sum of x[begin, c], x[begin + step, c], ... up to end: runs of 64 in the accumulation type,
/// the runs in double, so that a long segment keeps its digits.
template <class T>
SIMT_D double sum_of_rows(const SegmentSumArgs& a, std::int64_t begin, std::int64_t end, int step,
                          std::int64_t c) {
  using A = accumulator_t<T>;
  const T* const x = static_cast<const T*>(a.x) + c;
  double sum = 0;
  for (std::int64_t n = begin; n < end;) {
    A run = 0;
    for (int k = 0; k < 64 && n < end; ++k, n += step) run += A(to_float(x[n * a.x_pitch]));
    sum += static_cast<double>(run);
  }
  return sum;
}

// Block (x, y): 32 columns of a segment, y strides over segments; warp w takes rows w, w + 8, ...
// Shared: 8 x 32 doubles. Launch: grid (ceil(columns / 32), any), block 256.
template <class T>
__global__ void __launch_bounds__(kSegmentThreads)
    segment_sum_block_per_segment_kernel(const SegmentSumArgs a) {
  using A = accumulator_t<T>;
  SIMT_SHARED(double, s_part, [kSegmentWarps][32]);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t c = std::int64_t{blockIdx.x} * 32 + lane;
  for (std::int64_t s = blockIdx.y; s < a.segments; s += gridDim.y) {
    const Segment segment = segment_of(a.starts, s, a.rows);
    double sum = 0;
    if (c < a.columns) sum = sum_of_rows<T>(a, segment.begin + warp, segment.end, kSegmentWarps, c);
    s_part[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && c < a.columns) {
      for (int w = 1; w < kSegmentWarps; ++w) sum += s_part[w][lane];
      static_cast<T*>(a.y)[s * a.columns + c] =
          from_float<T>(static_cast<A>(sum * segment_factor<double>(a.mean, segment)));
    }
    __syncthreads();
  }
}

// One warp per segment and column in turn; lanes go over rows.
// Shared: none. Launch: grid ceil(segments / 8), block 256.
template <class T>
__global__ void __launch_bounds__(kSegmentThreads)
    segment_sum_warp_per_segment_kernel(const SegmentSumArgs a) {
  using A = accumulator_t<T>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t s = std::int64_t{blockIdx.x} * kSegmentWarps + threadIdx.x / 32;
  if (s >= a.segments) return;
  const Segment segment = segment_of(a.starts, s, a.rows);
  for (std::int64_t c = 0; c < a.columns; ++c) {
    double sum = sum_of_rows<T>(a, segment.begin + lane, segment.end, 32, c);
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) sum += __shfl_xor_sync(~0u, sum, d);
    if (lane == 0)
      static_cast<T*>(a.y)[s * a.columns + c] =
          from_float<T>(static_cast<A>(sum * segment_factor<double>(a.mean, segment)));
  }
}

// Block (x, y): columns of a segment's rows, y strides over segments and, as the last one, over
// the rows before and behind all of them.
// Shared: none. Launch: any grid.
template <class T>
__global__ void __launch_bounds__(kSegmentThreads)
    segment_spread_block_per_segment_kernel(const SegmentSpreadArgs a) {
  using A = accumulator_t<T>;
  T* const dx = static_cast<T*>(a.dx);
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x,
                     first = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (std::int64_t s = blockIdx.y; s <= a.segments; s += gridDim.y) {
    if (s == a.segments) {  // rows of no segment
      std::int64_t before = 0, behind = 0;
      if (a.segments > 0) {
        before = segment_of(a.starts, 0, a.rows).begin;
        behind = segment_of(a.starts, a.segments - 1, a.rows).end;
      }
      for (std::int64_t i = first; i < before * a.columns; i += step) dx[i] = from_float<T>(A(0));
      for (std::int64_t i = behind * a.columns + first; i < a.rows * a.columns; i += step)
        dx[i] = from_float<T>(A(0));
      continue;
    }
    const Segment segment = segment_of(a.starts, s, a.rows);
    const A factor = segment_factor<A>(a.mean, segment);
    for (std::int64_t i = first; i < (segment.end - segment.begin) * a.columns; i += step) {
      const A dy = to_float(static_cast<const T*>(a.dy)[s * a.dy_pitch + i % a.columns]);
      dx[segment.begin * a.columns + i] = from_float<T>(factor * dy);
    }
  }
}

// One thread per row and one behind the last: it writes the starts of the segments that begin with
// its row.
// Shared: none. Launch: any one-dimensional grid.
static __global__ void __launch_bounds__(256)
    segment_starts_thread_per_row_kernel(const SegmentStartsArgs a) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t n = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; n <= a.rows;
       n += step) {
    const std::int64_t before = n > 0 ? a.segment_of_row[n - 1] : -1,
                       here = n < a.rows ? a.segment_of_row[n] : a.segments;
    for (std::int64_t s = before + 1 > 0 ? before + 1 : 0; s <= here && s <= a.segments; ++s)
      a.starts[s] = static_cast<std::int32_t>(n);
  }
}

}  // namespace SIMT_NS

inline void segment_sum_launch(const Context& context, const SegmentSumArgs& a) {
  using namespace SIMT_NS;
  const auto stream = static_cast<cudaStream_t>(context.stream);
  dispatch_float(a.dtype, "segment_sum", [&]<class T>() {
    if (a.columns < kSegmentNarrow)
      simt::launch(
          {"segment_sum", static_cast<unsigned>((a.segments + kSegmentWarps - 1) / kSegmentWarps),
           kSegmentThreads, 0, stream},
          segment_sum_warp_per_segment_kernel<T>, a);
    else
      simt::launch({"segment_sum",
                    dim3(static_cast<unsigned>((a.columns + 31) / 32),
                         static_cast<unsigned>(a.segments < 65535 ? a.segments : 65535)),
                    kSegmentThreads, 0, stream},
                   segment_sum_block_per_segment_kernel<T>, a);
  });
}

inline void segment_spread_launch(const Context& context, const SegmentSpreadArgs& a) {
  using namespace SIMT_NS;
  // As many threads as the rows of an average segment have elements.
  const std::int64_t each = (a.rows / (a.segments + 1) + 1) * a.columns;
  dispatch_float(a.dtype, "segment_spread", [&]<class T>() {
    simt::launch({"segment_spread",
                  dim3(blocks_for(each, 4, kSegmentThreads),
                       static_cast<unsigned>(a.segments < 65535 ? a.segments + 1 : 65535)),
                  kSegmentThreads, 0, static_cast<cudaStream_t>(context.stream)},
                 segment_spread_block_per_segment_kernel<T>, a);
  });
}

inline void segment_starts_launch(const Context& context, const SegmentStartsArgs& a) {
  using namespace SIMT_NS;
  simt::launch({"segment_starts", blocks_for(a.rows + 1, 1), 256, 0,
                static_cast<cudaStream_t>(context.stream)},
               segment_starts_thread_per_row_kernel, a);
}

}  // namespace retort::kernels
