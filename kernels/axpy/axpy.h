// y := y + a * x, element by element.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// y[i] := y[i] + a * x[i] for i < n.
///
/// Shapes    x, y hold n elements, adjacent; both of `dtype` (f64, f32 or bf16). They may be the
///           same.
/// Numerics  one multiply and one add in the accumulation type (contracted to an fma where the
///           target does).
/// Cost      reads 2n, writes n elements.
/// Errors    Error if n < 0 or a pointer is null while n > 0.
struct AxpyArgs {
  void* y;
  const void* x;
  double a;
  std::int64_t n;
  DType dtype;
};

void axpy_cpu(const Context& context, const AxpyArgs& args);
extern CudaOp<AxpyArgs> axpy_cuda;

inline void axpy(const Context& context, const AxpyArgs& args) {
  RETORT_CHECK(args.n >= 0, "[axpy] expected n >= 0, got ", args.n);
  if (args.n == 0) return;
  RETORT_CHECK(args.x && args.y, "[axpy] expected non-null x and y");
  dispatch("axpy", context, args, axpy_cpu, axpy_cuda);
}

/// y[r, c] := y[r, c] + a * x[r, c]: the same for rows that lie *_pitch elements apart.
///
/// Shapes    x, y (rows, columns) of `dtype`; what lies between the rows is neither read nor
///           written. They may be the same.
/// Errors    Error if a size is negative, a pitch too small or a pointer null.
struct AxpyRowsArgs {
  void* y;
  const void* x;
  double a;
  std::int64_t rows, columns, y_pitch, x_pitch;
  DType dtype;
};

void axpy_rows_cpu(const Context& context, const AxpyRowsArgs& args);
extern CudaOp<AxpyRowsArgs> axpy_rows_cuda;

inline void axpy_rows(const Context& context, const AxpyRowsArgs& args) {
  RETORT_CHECK(args.rows >= 0 && args.columns >= 0, "[axpy_rows] expected rows, columns >= 0, got ",
               args.rows, ", ", args.columns);
  if (args.rows == 0 || args.columns == 0) return;
  RETORT_CHECK(args.rows == 1 || (args.y_pitch >= args.columns && args.x_pitch >= args.columns),
               "[axpy_rows] expected pitches of at least ", args.columns, ", got ", args.y_pitch,
               ", ", args.x_pitch);
  RETORT_CHECK(args.x && args.y, "[axpy_rows] expected non-null x and y");
  dispatch("axpy_rows", context, args, axpy_rows_cpu, axpy_rows_cuda);
}

}  // namespace retort::kernels
