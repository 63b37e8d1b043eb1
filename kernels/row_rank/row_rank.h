// The rank of each row's target among its logits: what top-k accuracies are made of.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// rank[n] = how many classes v come before the target y: s[v] > s[y], or s[v] == s[y] and v < y.
/// So 0 says that the first of the maxima is right, and rank < k that the top k hold the target.
///
/// Shapes    logits (N, V) = (rows, classes), rows `pitch` elements apart; targets, rank (N);
///           `dtype` f32 or bf16, f64 on the CPU.
/// Masking   targets[n] == ignore_index gives -1; that row is not read.
/// Numerics  exact. NaN is never right: it counts as larger than every number, and as a target it
///           ranks V, behind all.
/// Cost      reads N V elements.
/// Errors    Error if V < 1, a size or pitch does not fit or a pointer is null. A target outside
///           [0, V): on the CPU Error naming row and value; on CUDA its rank is V.
struct RowRankArgs {
  std::int32_t* rank;
  const void* logits;
  const std::int32_t* targets;
  std::int64_t rows, classes, pitch;
  std::int32_t ignore_index = -100;
  DType dtype = DType::kF32;
};

void row_rank_cpu(const Context& context, const RowRankArgs& args);
extern CudaOp<RowRankArgs> row_rank_cuda;

inline void row_rank(const Context& context, const RowRankArgs& a) {
  RETORT_CHECK(a.rows >= 0 && a.classes >= 1 && a.rows < std::int64_t{1} << 31 &&
                   a.classes < (std::int64_t{1} << 31) - 8192,
               "[row_rank] expected 0 <= rows < 2^31 and 1 <= classes < 2^31 - 8192, got ", a.rows,
               ", ", a.classes);
  RETORT_CHECK(a.rows <= 1 || a.pitch >= a.classes, "[row_rank] expected a pitch of at least ",
               a.classes, ", got ", a.pitch);
  if (a.rows == 0) return;
  RETORT_CHECK(a.rank && a.logits && a.targets,
               "[row_rank] expected non-null rank, logits and targets");
  dispatch("row_rank", context, a, row_rank_cpu, row_rank_cuda);
}

}  // namespace retort::kernels
