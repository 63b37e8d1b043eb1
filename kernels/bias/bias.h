// Bias added to every row, with an optional relu, and its backward.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// y[r, c] = x[r, c] + bias[c], then max(., 0) with relu.
///
/// Shapes    x, y (rows, columns) contiguous, bias (columns); all of `dtype` (f64, f32, bf16).
///           y may be x.
/// Masking   NaN in, NaN out, relu included.
/// Cost      reads and writes rows * columns elements.
struct BiasArgs {
  void* y;
  const void* x;
  const void* bias;
  std::int64_t rows, columns;
  bool relu = false;
  DType dtype;
};
void bias_cpu(const Context& context, const BiasArgs& args);
extern CudaOp<BiasArgs> bias_cuda;
inline void bias(const Context& context, const BiasArgs& args) {
  if (args.rows == 0 || args.columns == 0) return;
  RETORT_CHECK(args.rows > 0 && args.columns > 0 && args.x && args.y && args.bias,
               "[bias] expected sizes >= 0 and non-null pointers, got ", args.rows, " x ",
               args.columns);
  dispatch("bias", context, args, bias_cpu, bias_cuda);
}

/// dx = y ? dy * (y > 0) : dy;  dbias[c] = sum_r dx[r, c], rows added in an order fixed by sizes.
///
/// Shapes    as forward; y null means no relu, and dx is then not written (dx = dy). dbias may be
///           null (not wanted). dx may be dy.
struct BiasBackwardArgs {
  void* dx;
  void* dbias;
  const void* dy;
  const void* y;
  std::int64_t rows, columns;
  DType dtype;
};
void bias_backward_cpu(const Context& context, const BiasBackwardArgs& args);
extern CudaOp<BiasBackwardArgs> bias_backward_cuda;
inline void bias_backward(const Context& context, const BiasBackwardArgs& args) {
  if (args.columns == 0) return;
  RETORT_CHECK(args.rows >= 0 && args.columns > 0, "[bias_backward] expected sizes >= 0, got ",
               args.rows, " x ", args.columns);
  RETORT_CHECK(args.rows == 0 || (args.dy && (!args.y || args.dx)),
               "[bias_backward] expected non-null dy, and dx where y is given");
  dispatch("bias_backward", context, args, bias_backward_cpu, bias_backward_cuda);
}

}  // namespace retort::kernels
