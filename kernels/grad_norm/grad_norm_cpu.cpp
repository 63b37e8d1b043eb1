#include "kernels/grad_norm/grad_norm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/grad_norm/grad_norm_cpu.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3 | HWY_AVX3_DL)
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/common/sum_terms-inl.h"
#include "kernels/grad_norm/grad_norm_math.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {

double squares_of_segments(const Context& context, const GradNormArgs& args) {
  double total = 0;
  dispatch_float(args.dtype, "grad_norm", [&]<class T>() {
    for (const GradientSegment& s : args.segments) {
      const T* const x = static_cast<const T*>(s.values);
      total += sum_terms<double>(context.scratch, s.n, [=](std::int64_t i) HWY_ATTR -> double {
        const auto v = static_cast<double>(to_float(x[i]));  // f32 squares leave the range of f32
        return v * v;
      });
    }
  });
  return total;
}

static_assert(kTermChunk == kGradNormBlock);

// Of one block. Squares of f32 are exact in double: an fma has the same bits.
double squares_of_block(const float* x, std::int64_t n) {
  return sum_terms_here<double>(0, n, [=](std::int64_t i) HWY_ATTR -> double {
    const auto v = static_cast<double>(x[i]);
    return v * v;
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace retort::kernels {

CudaOp<GradNormArgs> grad_norm_cuda = nullptr;

HWY_EXPORT(squares_of_segments);
HWY_EXPORT(squares_of_block);

void grad_norm_cpu(const Context& context, const GradNormArgs& args) {
  grad_norm_finish(HWY_DYNAMIC_DISPATCH(squares_of_segments)(context, args), args.max_norm,
                   args.norm, args.clip, args.not_finite);
}

void grad_norm_squares_cpu(const float* values, std::int64_t n, double* squares) {
  RETORT_CHECK(n >= 0 && (n == 0 || (values && squares)),
               "[grad_norm] expected non-null values and squares and n >= 0, got n = ", n);
  parallel_for(n, kGradNormBlock, [=](std::int64_t begin, std::int64_t end) {
    squares[begin / kGradNormBlock] =
        HWY_DYNAMIC_DISPATCH(squares_of_block)(values + begin, end - begin);
  });
}

void grad_norm_of_squares_cpu(std::span<const double> squares, double max_norm, float* norm,
                              float* clip, std::int32_t* not_finite) {
  RETORT_CHECK(max_norm >= 0, "[grad_norm] expected max_norm >= 0, got ", max_norm);
  double total = 0;
  for (const double s : squares) total += s;
  grad_norm_finish(total, max_norm, norm, clip, not_finite);
}

}  // namespace retort::kernels
#endif  // HWY_ONCE
