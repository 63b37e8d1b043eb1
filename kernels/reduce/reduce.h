// Sums over everything, over rows, over columns, and their reverse: expansion.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// Which sums of a matrix x (rows, columns) are meant.
///   kAll     y[0] = factor * sum_rc x[r, c]
///   kRows    y[r] = factor * sum_c  x[r, c]
///   kColumns y[c] = factor * sum_r  x[r, c]
enum class Sum : std::uint8_t { kAll, kRows, kColumns };

/// Sums in an order fixed by the sizes (not by threads): the same bits every time on one device.
///
/// Shapes    x (rows, columns), rows every `pitch` elements; both of `dtype` (f64, f32, bf16).
/// Numerics  float partial sums of short runs, added in double (all in double for f64).
/// Cost      reads rows * columns elements; scratch: below 1 MiB, or rows / 64 * columns floats
///           for kColumns.
struct SumArgs {
  Sum kind;
  void* y;
  const void* x;
  std::int64_t rows, columns, pitch;
  double factor = 1;
  DType dtype;
};
void sum_cpu(const Context& context, const SumArgs& args);
extern CudaOp<SumArgs> sum_cuda;
void sum(const Context& context, const SumArgs& args);  // an empty sum is 0

/// The reverse: y[r, c] = factor * x[0], x[r] or x[c]. y is contiguous.
struct ExpandArgs {
  Sum kind;
  void* y;
  const void* x;
  std::int64_t rows, columns;
  double factor = 1;
  DType dtype;
};
void expand_cpu(const Context& context, const ExpandArgs& args);
extern CudaOp<ExpandArgs> expand_cuda;
inline void expand(const Context& context, const ExpandArgs& args) {
  if (args.rows == 0 || args.columns == 0) return;
  RETORT_CHECK(args.rows > 0 && args.columns > 0 && args.x && args.y,
               "[expand] expected sizes >= 0 and non-null pointers, got ", args.rows, " x ",
               args.columns);
  dispatch("expand", context, args, expand_cpu, expand_cuda);
}

inline void sum(const Context& context, const SumArgs& given) {
  SumArgs args = given;
  RETORT_CHECK(args.rows >= 0 && args.columns >= 0, "[sum] expected sizes >= 0, got ", args.rows,
               " x ", args.columns);
  const std::int64_t results = args.kind == Sum::kAll    ? 1
                               : args.kind == Sum::kRows ? args.rows
                                                         : args.columns;
  if (results == 0) return;
  if (args.rows == 0 || args.columns == 0) {  // results that are empty sums
    if (args.kind != Sum::kRows) args.rows = 0;
    if (args.kind != Sum::kColumns) args.columns = 0;
    args.pitch = args.columns;
  }
  RETORT_CHECK(args.y && (args.x || args.rows * args.columns == 0),
               "[sum] expected non-null x and y");
  RETORT_CHECK(args.rows <= 1 || args.pitch >= args.columns, "[sum] expected a pitch of at least ",
               args.columns, ", got ", args.pitch);
  dispatch("sum", context, args, sum_cpu, sum_cuda);
}

}  // namespace retort::kernels
