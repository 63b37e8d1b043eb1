// Mean squared error over all elements, and its gradient.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// loss[0] = (1/n) sum_i (x[i] - target[i])^2
///
/// Shapes    x, target hold n >= 1 elements, adjacent; all of `dtype` (f64, f32, bf16).
/// Numerics  differences in float (f64: double), partial sums added in double in an order fixed
///           by n.
/// Cost      reads 2n elements; scratch below 1 MiB.
struct MseArgs {
  void* loss;
  const void* x;
  const void* target;
  std::int64_t n;
  DType dtype;
};
void mse_cpu(const Context& context, const MseArgs& args);
extern CudaOp<MseArgs> mse_cuda;
inline void mse(const Context& context, const MseArgs& args) {
  RETORT_CHECK(args.n >= 1 && args.loss && args.x && args.target,
               "[mse] expected n >= 1 and non-null pointers, got n = ", args.n);
  dispatch("mse", context, args, mse_cpu, mse_cuda);
}

/// dx[i] = dloss[0] * 2/n * (x[i] - target[i]);  dtarget[i] = -dx[i]. Either may be null.
struct MseBackwardArgs {
  void* dx;
  void* dtarget;
  const void* x;
  const void* target;
  const void* dloss;
  std::int64_t n;
  DType dtype;
};
void mse_backward_cpu(const Context& context, const MseBackwardArgs& args);
extern CudaOp<MseBackwardArgs> mse_backward_cuda;
inline void mse_backward(const Context& context, const MseBackwardArgs& args) {
  RETORT_CHECK(args.n >= 1 && args.dloss && args.x && args.target,
               "[mse_backward] expected n >= 1 and non-null pointers, got n = ", args.n);
  dispatch("mse_backward", context, args, mse_backward_cpu, mse_backward_cuda);
}

}  // namespace retort::kernels
