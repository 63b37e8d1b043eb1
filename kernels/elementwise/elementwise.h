// Elementwise arithmetic, conversion between element types, filling.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"
#include "kernels/elementwise/elementwise_math.h"

namespace retort::kernels {

/// y[i] = f(x[i]) for i < n, f of elementwise_math.h; a and b are read by kAffine alone.
///
/// Shapes    x, y hold n elements, adjacent; both of `dtype` (f64, f32 or bf16); may be the same.
/// Masking   NaN in, NaN out, relu included.
/// Numerics  computed in float for bf16, else in dtype.
/// Cost      reads n, writes n elements.
struct UnaryArgs {
  Unary op;
  void* y;
  const void* x;
  std::int64_t n;
  double a = 1, b = 0;
  DType dtype;
};
void unary_cpu(const Context& context, const UnaryArgs& args);
extern CudaOp<UnaryArgs> unary_cuda;
inline void unary(const Context& context, const UnaryArgs& args) {
  if (args.n == 0) return;
  RETORT_CHECK(args.n > 0 && args.x && args.y, "[", name_of(args.op),
               "] expected n >= 0 and non-null x and y, got n = ", args.n);
  dispatch("unary", context, args, unary_cpu, unary_cuda);
}

/// dx[i] = dy[i] * f'(...), from saved = y or x as backward_reads_result says (unread by kAffine).
/// dx may be dy or saved.
struct UnaryBackwardArgs {
  Unary op;
  void* dx;
  const void* dy;
  const void* saved;
  std::int64_t n;
  double a = 1;
  DType dtype;
};
void unary_backward_cpu(const Context& context, const UnaryBackwardArgs& args);
extern CudaOp<UnaryBackwardArgs> unary_backward_cuda;
inline void unary_backward(const Context& context, const UnaryBackwardArgs& args) {
  if (args.n == 0) return;
  RETORT_CHECK(args.n > 0 && args.dx && args.dy && (args.saved || args.op == Unary::kAffine), "[",
               name_of(args.op),
               "_backward] expected n >= 0 and non-null pointers, got n = ", args.n);
  dispatch("unary_backward", context, args, unary_backward_cpu, unary_backward_cuda);
}

/// y[i] = f(x1[i], x2[i]), or f(x1[i], x2[0]) with x2_is_scalar. y may be x1, or x2 if that is no
/// scalar.
struct BinaryArgs {
  Binary op;
  void* y;
  const void* x1;
  const void* x2;
  std::int64_t n;
  bool x2_is_scalar = false;
  DType dtype;
};
void binary_cpu(const Context& context, const BinaryArgs& args);
extern CudaOp<BinaryArgs> binary_cuda;
inline void binary(const Context& context, const BinaryArgs& args) {
  if (args.n == 0) return;
  RETORT_CHECK(args.n > 0 && args.y && args.x1 && args.x2, "[", name_of(args.op),
               "] expected n >= 0 and non-null pointers, got n = ", args.n);
  dispatch("binary", context, args, binary_cpu, binary_cuda);
}

/// to[r, c] = convert(from[r, c]) for r < rows, c < columns; rows start every *_pitch elements.
///
/// Shapes    any two element types; the ranges may not overlap.
/// Numerics  see convert in elementwise_math.h.
struct CastArgs {
  void* to;
  const void* from;
  DType to_dtype, from_dtype;
  std::int64_t rows, columns;
  std::int64_t to_pitch, from_pitch;
};
void cast_cpu(const Context& context, const CastArgs& args);
extern CudaOp<CastArgs> cast_cuda;
inline void cast(const Context& context, const CastArgs& args) {
  if (args.rows == 0 || args.columns == 0) return;
  RETORT_CHECK(args.rows > 0 && args.columns > 0 && args.to && args.from,
               "[cast] expected sizes >= 0 and non-null pointers, got ", args.rows, " x ",
               args.columns);
  RETORT_CHECK(args.rows == 1 || (args.to_pitch >= args.columns && args.from_pitch >= args.columns),
               "[cast] expected pitches of at least ", args.columns, ", got ", args.to_pitch, ", ",
               args.from_pitch);
  dispatch("cast", context, args, cast_cpu, cast_cuda);
}

/// to[r, c] = convert(value); the gap between rows is left alone.
struct FillArgs {
  void* to;
  double value;
  DType dtype;
  std::int64_t rows, columns, pitch;
};
void fill_cpu(const Context& context, const FillArgs& args);
extern CudaOp<FillArgs> fill_cuda;
inline void fill(const Context& context, const FillArgs& args) {
  if (args.rows == 0 || args.columns == 0) return;
  RETORT_CHECK(args.rows > 0 && args.columns > 0 && args.to,
               "[fill] expected sizes >= 0 and a non-null pointer, got ", args.rows, " x ",
               args.columns);
  RETORT_CHECK(args.rows == 1 || args.pitch >= args.columns, "[fill] expected a pitch of at least ",
               args.columns, ", got ", args.pitch);
  dispatch("fill", context, args, fill_cpu, fill_cuda);
}

/// *counter += by, unless *skip is set: the step counter of an optimizer, on the device so that a
/// captured graph advances it.
struct AdvanceArgs {
  std::int64_t* counter;
  std::int64_t by;
  const std::int32_t* skip = nullptr;  // optional
};
void advance_cpu(const Context& context, const AdvanceArgs& args);
extern CudaOp<AdvanceArgs> advance_cuda;
inline void advance(const Context& context, const AdvanceArgs& args) {
  RETORT_CHECK(args.counter, "[advance] expected a non-null counter");
  dispatch("advance", context, args, advance_cpu, advance_cuda);
}

}  // namespace retort::kernels
