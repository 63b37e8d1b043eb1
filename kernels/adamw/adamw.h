// AdamW over a flat arena of parameters.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// One update, with t = *step (from 1); the learning rate, the clip coefficient and the step number
/// are read from memory of the context's device:
///
///   g = clip * gradient
///   p = p * (1 - learning_rate * weight_decay)   (not from element `decayed` on)
///   m = beta1 * m + (1 - beta1) * g
///   v = beta2 * v + (1 - beta2) * g^2
///   p = p - learning_rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
///
/// Shapes    all arrays hold n elements, adjacent. parameter, m and v are of `dtype` (f32 or f64),
///           gradient of `gradient_dtype` (dtype, or bf16 beside f32).
/// Masking   if skip is given and *skip != 0, nothing is written (a step with bad gradients).
/// Numerics  in dtype, bias corrections in double; parameter_copy, if given, is the new parameter
///           rounded to bf16. An element's bits follow from its own values alone, wherever it
///           lies (adamw_math.h).
/// Cost      reads 4n, writes 3n elements, in one pass.
/// Errors    Error if n < 0, a needed pointer is null or the dtypes do not go together.
/// Source    Loshchilov, Hutter 2019, arXiv:1711.05101; PyTorch torch.optim.AdamW.
struct AdamWArgs {
  void* parameter = nullptr;
  const void* gradient = nullptr;
  void* first_moment = nullptr;    // m
  void* second_moment = nullptr;   // v
  bf16* parameter_copy = nullptr;  // optional
  std::int64_t n = 0;
  const float* learning_rate = nullptr;
  const std::int64_t* step = nullptr;  // number of this update, from 1
  const float* clip = nullptr;         // optional factor on the gradient (grad_norm writes it)
  const std::int32_t* skip = nullptr;  // optional
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0;
  std::int64_t decayed = -1;  // only elements [0, decayed) are decayed; -1: all
  DType dtype = DType::kF32, gradient_dtype = DType::kF32;
};
void adamw_cpu(const Context& context, const AdamWArgs& args);  // takes decayed = -1 only
extern CudaOp<AdamWArgs> adamw_cuda;

/// The decayed elements, then the others.
inline void adamw_cpu_in_parts(const Context& context, const AdamWArgs& args) {
  const auto at = [&](const void* p, DType dtype) {
    const auto bytes = static_cast<std::size_t>(args.decayed) * size_of(dtype);
    return const_cast<char*>(static_cast<const char*>(p)) + bytes;
  };
  AdamWArgs first = args, second = args;
  first.n = args.decayed;
  second.n = args.n - args.decayed;
  second.parameter = at(args.parameter, args.dtype);
  second.gradient = at(args.gradient, args.gradient_dtype);
  second.first_moment = at(args.first_moment, args.dtype);
  second.second_moment = at(args.second_moment, args.dtype);
  if (args.parameter_copy) second.parameter_copy = args.parameter_copy + args.decayed;
  second.weight_decay = 0;
  first.decayed = second.decayed = -1;
  if (first.n > 0) adamw_cpu(context, first);
  if (second.n > 0) adamw_cpu(context, second);
}

inline void adamw(const Context& context, const AdamWArgs& args) {
  RETORT_CHECK(args.n >= 0, "[adamw] expected n >= 0, got ", args.n);
  RETORT_CHECK(args.dtype == DType::kF32 || args.dtype == DType::kF64,
               "[adamw] expected f32 or f64 parameters, got ", name_of(args.dtype));
  RETORT_CHECK(args.gradient_dtype == args.dtype ||
                   (args.dtype == DType::kF32 && args.gradient_dtype == DType::kBF16),
               "[adamw] expected gradients of ", name_of(args.dtype), " or bf16 beside f32, got ",
               name_of(args.gradient_dtype));
  RETORT_CHECK(args.beta1 >= 0 && args.beta1 < 1 && args.beta2 >= 0 && args.beta2 < 1,
               "[adamw] expected 0 <= beta < 1, got ", args.beta1, " and ", args.beta2);
  if (args.n == 0) return;
  RETORT_CHECK(args.parameter && args.gradient && args.first_moment && args.second_moment &&
                   args.learning_rate && args.step,
               "[adamw] expected non-null parameter, gradient, moments, learning_rate and step");
  RETORT_CHECK(args.decayed >= -1 && args.decayed <= args.n, "[adamw] expected decayed in [-1, ",
               args.n, "], got ", args.decayed);
  if (context.device == Device::kCpu && args.decayed >= 0) return adamw_cpu_in_parts(context, args);
  dispatch("adamw", context, args, adamw_cpu, adamw_cuda);
}

}  // namespace retort::kernels
