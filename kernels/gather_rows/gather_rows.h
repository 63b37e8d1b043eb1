// Rows of a table by index, and the addition of rows back to where they came from: an embedding.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// y[n] = table[indices[n]] for n < rows.
///
/// Shapes    table (R, C) = (table_rows, columns), y (N, C) = (rows, columns), rows `*_pitch`
///           elements apart, of any `dtype`; indices (N).
/// Numerics  a copy, bit for bit.
/// Cost      reads and writes N C elements.
/// Errors    Error if a size is negative or has 2^31 and more, a pitch is too small or a pointer
///           null. An index outside [0, R): on the CPU Error naming row and index, nothing is
///           written; on CUDA that row of y is filled with one-bits (NaN in floating types) and
///           invalid_row, if not null, is 1 + the first such row (0: none).
struct GatherRowsArgs {
  void* y;
  const void* table;
  const std::int32_t* indices;
  std::int64_t rows, columns, table_rows;
  std::int64_t y_pitch, table_pitch;
  DType dtype;
  std::int32_t* invalid_row = nullptr;
};

void gather_rows_cpu(const Context& context, const GatherRowsArgs& args);
extern CudaOp<GatherRowsArgs> gather_rows_cuda;

/// table[indices[n]] += x[n] for n < rows: the backward of gather_rows, into what is there already.
///
/// Shapes    x (N, C), table (R, C), rows `*_pitch` elements apart, of `dtype` (f64, f32, bf16).
/// Numerics  the rows of one index are added up by ascending n, in float for bf16: kScatterTile
///           positions of the order by index at a time, those sums in order, and their sum is added
///           to the table with one rounding. No float atomics: the same bits for any thread count,
///           in every run, and on CPU and CUDA.
/// Cost      reads N C, reads and writes as many rows of the table as there are different indices.
///           Scratch 8 bytes a row and, of the accumulation type, N C / 16 elements.
/// Errors    as gather_rows; on CUDA a row with an index outside [0, R) is left out.
struct ScatterRowsArgs {
  void* table;
  const void* x;
  const std::int32_t* indices;
  std::int64_t rows, columns, table_rows;
  std::int64_t table_pitch, x_pitch;
  DType dtype;
};

inline constexpr std::int64_t kScatterTile = 32;

/// How often rows are sorted by eight bits of their index. An index outside [0, R) counts as R.
constexpr int scatter_passes(std::int64_t table_rows) {
  int passes = 1;
  while (passes < 4 && table_rows >> (8 * passes) != 0) ++passes;
  return passes;
}

void scatter_rows_cpu(const Context& context, const ScatterRowsArgs& args);
extern CudaOp<ScatterRowsArgs> scatter_rows_cuda;

inline void check_indexed_rows(const char* op, std::int64_t rows, std::int64_t columns,
                               std::int64_t table_rows, std::int64_t pitch,
                               std::int64_t table_pitch) {
  constexpr std::int64_t kMost = std::int64_t{1} << 31;
  RETORT_CHECK(
      rows >= 0 && columns >= 0 && table_rows >= 0 && rows < kMost && table_rows < kMost - 1, "[",
      op, "] expected 0 <= rows, columns, table rows and fewer than 2^31 - 1 rows, got ", rows,
      ", ", columns, ", ", table_rows);
  RETORT_CHECK((rows <= 1 || pitch >= columns) && (table_rows <= 1 || table_pitch >= columns), "[",
               op, "] expected pitches of at least ", columns, ", got ", pitch, ", ", table_pitch);
}

inline void gather_rows(const Context& context, const GatherRowsArgs& args) {
  check_indexed_rows("gather_rows", args.rows, args.columns, args.table_rows, args.y_pitch,
                     args.table_pitch);
  RETORT_CHECK(args.rows == 0 || (args.indices && (args.columns == 0 || args.table_rows == 0 ||
                                                   (args.y && args.table))),
               "[gather_rows] expected non-null y, table and indices");
  dispatch("gather_rows", context, args, gather_rows_cpu, gather_rows_cuda);
}

inline void scatter_rows(const Context& context, const ScatterRowsArgs& args) {
  check_indexed_rows("scatter_rows", args.rows, args.columns, args.table_rows, args.x_pitch,
                     args.table_pitch);
  if (args.rows == 0 || args.columns == 0) return;
  RETORT_CHECK(args.indices && args.x && (args.table || args.table_rows == 0),
               "[scatter_rows] expected non-null x, table and indices");
  dispatch("scatter_rows", context, args, scatter_rows_cpu, scatter_rows_cuda);
}

}  // namespace retort::kernels
