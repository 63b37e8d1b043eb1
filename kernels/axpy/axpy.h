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

}  // namespace retort::kernels
