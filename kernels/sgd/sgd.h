// Stochastic gradient descent over a flat arena of parameters.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// One update, with mu = momentum and the learning rate, the clip coefficient and the step number
/// read from memory of the context's device:
///
///   g = clip * gradient + weight_decay * p      (weight_decay is 0 from element `decayed` on)
///   b = (step == 1) ? g : mu * b + (1 - dampening) * g            (if mu != 0)
///   g = nesterov ? g + mu * b : b                                 (if mu != 0)
///   p = p - learning_rate * g
///
/// Shapes    all arrays hold n elements, adjacent. parameter and momentum_buffer are of `dtype`
///           (f32 or f64), gradient of `gradient_dtype` (dtype, or bf16 beside f32).
/// Masking   if skip is given and *skip != 0, nothing is written (a step with bad gradients).
/// Numerics  in dtype; parameter_copy, if given, is the new parameter rounded to bf16. An element's
///           bits follow from its own values alone, wherever it lies (sgd_math.h).
/// Cost      reads 2n (3n with momentum), writes n (2n) elements, in one pass.
/// Errors    Error if n < 0, a needed pointer is null or the dtypes do not go together.
/// Source    PyTorch torch.optim.SGD (the first momentum buffer is the gradient, undampened).
struct SgdArgs {
  void* parameter = nullptr;
  const void* gradient = nullptr;
  void* momentum_buffer = nullptr;  // unused if momentum == 0
  bf16* parameter_copy = nullptr;   // optional
  std::int64_t n = 0;
  const float* learning_rate = nullptr;
  const std::int64_t* step = nullptr;  // number of this update, from 1; unused if momentum == 0
  const float* clip = nullptr;         // optional factor on the gradient (grad_norm writes it)
  const std::int32_t* skip = nullptr;  // optional
  double momentum = 0, dampening = 0, weight_decay = 0;
  std::int64_t decayed = -1;  // only elements [0, decayed) are decayed; -1: all
  bool nesterov = false;
  DType dtype = DType::kF32, gradient_dtype = DType::kF32;
};
void sgd_cpu(const Context& context, const SgdArgs& args);  // takes decayed = -1 only
extern CudaOp<SgdArgs> sgd_cuda;

/// The decayed elements, then the others.
inline void sgd_cpu_in_parts(const Context& context, const SgdArgs& args) {
  const auto at = [&](const void* p, DType dtype) {
    const auto bytes = static_cast<std::size_t>(args.decayed) * size_of(dtype);
    return p ? const_cast<char*>(static_cast<const char*>(p)) + bytes : nullptr;
  };
  SgdArgs first = args, second = args;
  first.n = args.decayed;
  second.n = args.n - args.decayed;
  second.parameter = at(args.parameter, args.dtype);
  second.gradient = at(args.gradient, args.gradient_dtype);
  second.momentum_buffer = at(args.momentum_buffer, args.dtype);
  if (args.parameter_copy) second.parameter_copy = args.parameter_copy + args.decayed;
  second.weight_decay = 0;
  first.decayed = second.decayed = -1;
  if (first.n > 0) sgd_cpu(context, first);
  if (second.n > 0) sgd_cpu(context, second);
}

inline void sgd(const Context& context, const SgdArgs& args) {
  RETORT_CHECK(args.n >= 0, "[sgd] expected n >= 0, got ", args.n);
  RETORT_CHECK(args.dtype == DType::kF32 || args.dtype == DType::kF64,
               "[sgd] expected f32 or f64 parameters, got ", name_of(args.dtype));
  RETORT_CHECK(args.gradient_dtype == args.dtype ||
                   (args.dtype == DType::kF32 && args.gradient_dtype == DType::kBF16),
               "[sgd] expected gradients of ", name_of(args.dtype), " or bf16 beside f32, got ",
               name_of(args.gradient_dtype));
  RETORT_CHECK(!args.nesterov || (args.momentum > 0 && args.dampening == 0),
               "[sgd] expected momentum > 0 and dampening 0 with nesterov, got ", args.momentum,
               " and ", args.dampening);
  if (args.n == 0) return;
  RETORT_CHECK(args.parameter && args.gradient && args.learning_rate,
               "[sgd] expected non-null parameter, gradient and learning_rate");
  RETORT_CHECK(args.momentum == 0 || (args.momentum_buffer && args.step),
               "[sgd] expected a momentum buffer and a step with momentum ", args.momentum);
  RETORT_CHECK(args.decayed >= -1 && args.decayed <= args.n, "[sgd] expected decayed in [-1, ",
               args.n, "], got ", args.decayed);
  if (context.device == Device::kCpu && args.decayed >= 0) return sgd_cpu_in_parts(context, args);
  dispatch("sgd", context, args, sgd_cpu, sgd_cuda);
}

}  // namespace retort::kernels
