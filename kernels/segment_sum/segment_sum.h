// Sums and means over neighbouring rows: from token rows to samples.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// y[s] = the sum, or with `mean` the mean, of x[n] over starts[s] <= n < starts[s + 1].
///
/// Shapes    x (N, C) = (rows, columns), rows x_pitch elements apart; starts (S + 1), ascending, 0
///           to N; y (S, C), contiguous; `dtype` f64, f32 or bf16.
///           Rows before starts[0] and from starts[S] on (padding of a captured batch) are not
///           read.
/// Masking   an empty segment gives 0, its mean too.
/// Numerics  summed in double, on CUDA in runs of 64 in the accumulation type, in an order fixed by
///           the segment's length and by C; rounded once.
/// Cost      reads N C elements once, writes S C.
/// Errors    Error if a size is negative, the pitch too small or a pointer null. CPU: Error naming
///           the segment if starts descends or leaves [0, N]. CUDA: starts is cut to that range.
struct SegmentSumArgs {
  void* y;
  const void* x;
  const std::int32_t* starts;
  std::int64_t segments, rows, columns, x_pitch;
  bool mean;
  DType dtype;
};

void segment_sum_cpu(const Context& context, const SegmentSumArgs& args);
extern CudaOp<SegmentSumArgs> segment_sum_cuda;

/// dx[n] = dy[s], or with `mean` dy[s] / (rows of s), of the segment s that holds n; 0 where none
/// does: the backward of segment_sum.
///
/// Shapes    dy (S, C), rows dy_pitch elements apart; dx (N, C), contiguous; else as segment_sum.
struct SegmentSpreadArgs {
  void* dx;
  const void* dy;
  const std::int32_t* starts;
  std::int64_t segments, rows, columns, dy_pitch;
  bool mean;
  DType dtype;
};

void segment_spread_cpu(const Context& context, const SegmentSpreadArgs& args);
extern CudaOp<SegmentSpreadArgs> segment_spread_cuda;

/// starts[s] = the first n with segment_of_row[n] >= s, for s <= segments (rows if there is none).
///
/// Shapes    segment_of_row (N), ascending, in [0, segments); starts (segments + 1).
/// Errors    CPU: Error naming the row if segment_of_row descends or leaves its range. CUDA: what
///           starts then holds is ascending and within [0, N], no more.
struct SegmentStartsArgs {
  std::int32_t* starts;
  const std::int32_t* segment_of_row;
  std::int64_t segments, rows;
};

void segment_starts_cpu(const Context& context, const SegmentStartsArgs& args);
extern CudaOp<SegmentStartsArgs> segment_starts_cuda;

inline void check_segments(const char* op, std::int64_t segments, std::int64_t rows,
                           std::int64_t columns, const void* starts) {
  RETORT_CHECK(segments >= 0 && rows >= 0 && columns >= 0 && rows < std::int64_t{1} << 31, "[", op,
               "] expected segments, rows, columns >= 0 and fewer than 2^31 rows, got ", segments,
               ", ", rows, ", ", columns);
  RETORT_CHECK(starts, "[", op, "] expected non-null starts");
}

inline void segment_sum(const Context& context, const SegmentSumArgs& a) {
  check_segments("segment_sum", a.segments, a.rows, a.columns, a.starts);
  RETORT_CHECK(a.rows <= 1 || a.x_pitch >= a.columns, "[segment_sum] expected a pitch of at least ",
               a.columns, ", got ", a.x_pitch);
  if (a.segments == 0 || a.columns == 0) return;
  RETORT_CHECK(a.y && (a.rows == 0 || a.x), "[segment_sum] expected non-null x and y");
  dispatch("segment_sum", context, a, segment_sum_cpu, segment_sum_cuda);
}

inline void segment_spread(const Context& context, const SegmentSpreadArgs& a) {
  check_segments("segment_spread", a.segments, a.rows, a.columns, a.starts);
  RETORT_CHECK(a.segments <= 1 || a.dy_pitch >= a.columns,
               "[segment_spread] expected a pitch of at least ", a.columns, ", got ", a.dy_pitch);
  if (a.rows == 0 || a.columns == 0) return;
  RETORT_CHECK(a.dx && (a.segments == 0 || a.dy), "[segment_spread] expected non-null dx and dy");
  dispatch("segment_spread", context, a, segment_spread_cpu, segment_spread_cuda);
}

inline void segment_starts(const Context& context, const SegmentStartsArgs& a) {
  check_segments("segment_starts", a.segments, a.rows, 0, a.starts);
  RETORT_CHECK(a.rows == 0 || a.segment_of_row,
               "[segment_starts] expected non-null segment_of_row");
  dispatch("segment_starts", context, a, segment_starts_cpu, segment_starts_cuda);
}

}  // namespace retort::kernels
