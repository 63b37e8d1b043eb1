// softmax and log_softmax over the last dimension, and their backward.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// y = softmax(x):      y[i, v] = exp(x[i, v] - m_i) / sum_u exp(x[i, u] - m_i),  m_i = max_u x
/// y = log_softmax(x):  y[i, v] = (x[i, v] - m_i) - log sum_u exp(x[i, u] - m_i)
///
/// Shapes    x, y (N, V), rows `*_pitch` elements apart (>= V). y may be x.
/// Numerics  row maximum subtracted; f32 accumulation for f32 and bf16, f64 for f64. A row of -inf
///           alone has no mass: softmax 0, log_softmax -inf. NaN or +inf gives NaN.
///           Sums in an order fixed by V: the same bits in every run.
/// Cost      reads NV (CUDA, V > 1024: 2NV), writes NV elements; no scratch.
/// Errors    Error if N < 0, V < 1 or a pitch < V.
struct SoftmaxArgs {
  void* y;
  const void* x;
  std::int64_t rows, classes, y_pitch, x_pitch;
  bool log;
  DType dtype;
};

void softmax_cpu(const Context& context, const SoftmaxArgs& args);
extern CudaOp<SoftmaxArgs> softmax_cuda;

/// softmax:      dx = (dy - sum_u dy[u] y[u]) y        log_softmax:  dx = dy - exp(y) sum_u dy[u]
/// Needs the result y only. Shapes, pitches and numerics as above; dx may be dy or y.
struct SoftmaxBackwardArgs {
  void* dx;
  const void* dy;
  const void* y;
  std::int64_t rows, classes, dx_pitch, dy_pitch, y_pitch;
  bool log;
  DType dtype;
};

void softmax_backward_cpu(const Context& context, const SoftmaxBackwardArgs& args);
extern CudaOp<SoftmaxBackwardArgs> softmax_backward_cuda;

inline void softmax(const Context& context, const SoftmaxArgs& a) {
  RETORT_CHECK(a.rows >= 0 && a.classes >= 1, "[softmax] expected rows >= 0 and classes >= 1, got ",
               a.rows, ", ", a.classes);
  if (a.rows == 0) return;
  RETORT_CHECK(a.rows == 1 || (a.y_pitch >= a.classes && a.x_pitch >= a.classes),
               "[softmax] expected pitches >= ", a.classes, ", got ", a.y_pitch, ", ", a.x_pitch);
  RETORT_CHECK(a.y && a.x, "[softmax] expected non-null x and y");
  dispatch("softmax", context, a, softmax_cpu, softmax_cuda);
}

inline void softmax_backward(const Context& context, const SoftmaxBackwardArgs& a) {
  RETORT_CHECK(a.rows >= 0 && a.classes >= 1,
               "[softmax_backward] expected rows >= 0 and classes >= 1, got ", a.rows, ", ",
               a.classes);
  if (a.rows == 0) return;
  RETORT_CHECK(
      a.rows == 1 || (a.dx_pitch >= a.classes && a.dy_pitch >= a.classes && a.y_pitch >= a.classes),
      "[softmax_backward] expected pitches >= ", a.classes);
  RETORT_CHECK(a.dx && a.dy && a.y, "[softmax_backward] expected non-null dx, dy and y");
  dispatch("softmax_backward", context, a, softmax_backward_cpu, softmax_backward_cuda);
}

}  // namespace retort::kernels
