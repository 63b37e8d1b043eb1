// Bias added to every row, with an optional activation, and its backward.
#pragma once
#include <cstdint>

#include "kernels/common/activation.h"
#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// y[r, c] = f(x[r, c] + bias[c]), f the activation.
///
/// Shapes    x, y (rows, columns) contiguous, bias (columns); all of `dtype` (f64, f32, bf16).
///           y may be x.
/// Masking   NaN in, NaN out, relu included.
/// Numerics  computed in float for bf16, else in dtype; rounded once.
/// Cost      reads and writes rows * columns elements.
struct BiasArgs {
  void* y;
  const void* x;
  const void* bias;
  std::int64_t rows, columns;
  Activation activation = Activation::kNone;
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

/// dx = dy f'(z);  dbias[c] = sum_r dx[r, c], rows added in an order fixed by sizes.
///
/// Shapes    as forward. saved: y where backward_reads_result(activation), else z = x + bias, or x
///           if `bias` is given to be added again; unread with kNone, and dx is then not written
///           (dx = dy). dbias may be null (not wanted). dx may be dy.
struct BiasBackwardArgs {
  void* dx;
  void* dbias;
  const void* dy;
  const void* saved;
  std::int64_t rows, columns;
  Activation activation = Activation::kNone;
  DType dtype;
  const void* bias = nullptr;
};
void bias_backward_cpu(const Context& context, const BiasBackwardArgs& args);
extern CudaOp<BiasBackwardArgs> bias_backward_cuda;
inline void bias_backward(const Context& context, const BiasBackwardArgs& args) {
  if (args.columns == 0) return;
  RETORT_CHECK(args.rows >= 0 && args.columns > 0, "[bias_backward] expected sizes >= 0, got ",
               args.rows, " x ", args.columns);
  const bool activated = args.activation != Activation::kNone;
  RETORT_CHECK(args.rows == 0 || (args.dy && (!activated || (args.dx && args.saved))),
               "[bias_backward] expected non-null dy, with an activation also dx and saved");
  RETORT_CHECK(!args.bias || (activated && !backward_reads_result(args.activation)),
               "[bias_backward] expected a bias only where z is read, got one with ",
               name_of(args.activation));
  dispatch("bias_backward", context, args, bias_backward_cpu, bias_backward_cuda);
}

}  // namespace retort::kernels
