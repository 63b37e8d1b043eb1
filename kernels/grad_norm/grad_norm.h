// The global norm of all gradients and the factor that clips it.
#pragma once
#include <cstdint>
#include <span>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

struct GradientSegment {
  const void* values;
  std::int64_t n;
};

/// norm = sqrt(sum over all segments of g^2);  clip = min(1, max_norm / (norm + 1e-6)), or 1 if
/// max_norm is 0;  not_finite = 1 if norm is NaN or infinite, else 0.
///
/// Shapes    any number of segments (host array of device pointers), all of `dtype` (f32, f64 or
///           bf16). norm, clip and not_finite are one element each on the context's device; any
///           of them may be null. No synchronisation: the optimizers read them there.
/// Numerics  squared and added in double, in an order fixed by the sizes: no finite f32 gradient
///           overflows or vanishes, so clip is right even where the norm, a float, is infinite.
/// Masking   with a NaN or an infinity among the gradients clip is 1: whoever wants such a step
///           skipped passes not_finite to the optimizer as `skip`.
/// Cost      reads every gradient once; scratch 8 bytes per 16,384 elements. On CUDA one launch per
///           64 segments and one that finishes; one launch in all for at most 64 segments and a
///           ticket: then the last block to be done finishes.
/// Source    PyTorch torch.nn.utils.clip_grad_norm_.
struct GradNormArgs {
  std::span<const GradientSegment> segments;
  float* norm = nullptr;
  float* clip = nullptr;
  std::int32_t* not_finite = nullptr;
  double max_norm = 0;
  DType dtype = DType::kF32;
  std::uint32_t* ticket = nullptr;  // optional, CUDA: holds 0 before and after
};
void grad_norm_cpu(const Context& context, const GradNormArgs& args);
extern CudaOp<GradNormArgs> grad_norm_cuda;

inline void grad_norm(const Context& context, const GradNormArgs& args) {
  RETORT_CHECK(args.max_norm >= 0, "[grad_norm] expected max_norm >= 0, got ", args.max_norm);
  for (const GradientSegment& s : args.segments)
    RETORT_CHECK(s.n >= 0 && (s.n == 0 || s.values),
                 "[grad_norm] expected segments with n >= 0 and non-null values, got n = ", s.n);
  dispatch("grad_norm", context, args, grad_norm_cpu, grad_norm_cuda);
}

/// Elements of a block of the norm in two parts.
inline constexpr std::int64_t kGradNormBlock = 16384;

/// The same norm in two parts, for an array whose blocks several processes have. On the CPU alone:
///
///   squares[b] = sum of g^2 over elements [16384 b, min(n, 16384 (b + 1)))
///   norm, clip and not_finite as above, of squares[0] + squares[1] + ...
///
/// Shapes    values f32 (n), squares f64 (ceil(n / 16384)); any of norm, clip, not_finite may be
///           null.
/// Numerics  the bytes of grad_norm_cpu() of the whole array as one segment, whoever computed which
///           blocks: a block's sum follows from its own values, and the blocks are added in order.
void grad_norm_squares_cpu(const float* values, std::int64_t n, double* squares);
void grad_norm_of_squares_cpu(std::span<const double> squares, double max_norm, float* norm,
                              float* clip, std::int32_t* not_finite);

}  // namespace retort::kernels
