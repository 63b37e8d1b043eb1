// Matrix product with an optional bias and activation.
#pragma once
#include <cstdint>

#include "kernels/common/activation.h"
#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// C := f(Z), Z = alpha * op(A) op(B) + beta * C + bias, where op(X) is X or its transpose and f
/// the activation.
///
/// Shapes    op(A) (M, K), op(B) (K, N), C (M, N), bias (N) added to every row, or null. All are
///           row-major and of `dtype` (f64, f32, bf16); lda, ldb, ldc are the distances in elements
///           between stored rows, so A is stored (K, M) if transpose_a. C overlaps nothing else.
///           pre_activation, if not null, receives Z: (M, N), rows ldc apart, apart from C. What
///           the backward of GELU reads; with beta != 0 it holds the old content instead of C.
/// Numerics  f64 and f32 as they are (TF32 on CUDA only if the context allows it); bf16 products
///           are summed in f32 and rounded once, or once before the activation and once behind
///           it (cuBLASLt; the sign of relu does not see it). beta == 0 does not read C. K == 0
///           gives f(beta * C + bias). NaN in, NaN out, relu included.
///           row_alone (CPU; transpose_b, alpha 1, beta 0, f32 and bf16): an element is the same bits
///           whatever M is and whatever else A holds.
/// Cost      2 M N K operations. On the CPU bf16 takes 4 (MK + KN + MN) bytes of scratch.
/// Errors    Error if a size is negative, a leading dimension too small or a pointer null, or if
///           row_alone is wanted where it cannot be had.
///
/// Same bytes with any number of threads: on the CPU a tile of C is computed by one thread over the
/// whole of K, and either the tiles depend on M, N, K alone or an element on its tile not at all.
struct GemmArgs {
  void* c;
  const void* a;
  const void* b;
  std::int64_t m, n, k;
  std::int64_t lda, ldb, ldc;
  bool transpose_a = false, transpose_b = false;
  DType dtype = DType::kF32;
  double alpha = 1, beta = 0;
  const void* bias = nullptr;
  Activation activation = Activation::kNone;
  void* pre_activation = nullptr;
  bool row_alone = false;
};

void gemm_cpu(const Context& context, const GemmArgs& args);
extern CudaOp<GemmArgs> gemm_cuda;

inline void gemm(const Context& context, const GemmArgs& args) {
  RETORT_CHECK(args.m >= 0 && args.n >= 0 && args.k >= 0, "[gemm] expected M, N, K >= 0, got ",
               args.m, ", ", args.n, ", ", args.k);
  if (args.m == 0 || args.n == 0) return;
  RETORT_CHECK(args.ldc >= args.n, "[gemm] expected ldc >= ", args.n, ", got ", args.ldc);
  RETORT_CHECK(args.lda >= (args.transpose_a ? args.m : args.k),
               "[gemm] expected lda >= ", args.transpose_a ? args.m : args.k, ", got ", args.lda);
  RETORT_CHECK(args.ldb >= (args.transpose_b ? args.k : args.n),
               "[gemm] expected ldb >= ", args.transpose_b ? args.k : args.n, ", got ", args.ldb);
  RETORT_CHECK(!args.pre_activation || args.pre_activation != args.c,
               "[gemm] expected a place of its own for the pre-activation, got that of C");
  RETORT_CHECK(args.c && (args.k == 0 || (args.a && args.b)), "[gemm] expected non-null A, B, C");
  RETORT_CHECK(!args.row_alone ||
                   (context.device == Device::kCpu && args.dtype != DType::kF64 && args.k >= 1 &&
                    !args.transpose_a && args.transpose_b && args.alpha == 1 && args.beta == 0),
               "[gemm] row_alone expects A B^T in f32 or bf16 on the CPU");
  dispatch("gemm", context, args, gemm_cpu, gemm_cuda);
}

}  // namespace retort::kernels
