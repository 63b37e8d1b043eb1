// Dropout whose mask is a function of the sample and not of its place in a batch.
#pragma once
#include "kernels/common/dispatch.h"
#include "kernels/common/dropout_args.h"

namespace retort::kernels {

void dropout_cpu(const Context& context, const DropoutArgs& args);
extern CudaOp<DropoutArgs> dropout_cuda;

inline void dropout(const Context& context, const DropoutArgs& a) {
  RETORT_CHECK(a.p >= 0 && a.p < 1, "[dropout] expected p in [0, 1), got ", a.p);
  RETORT_CHECK(a.rows >= 0 && a.columns >= 0, "[dropout] expected rows, columns >= 0, got ", a.rows,
               ", ", a.columns);
  RETORT_CHECK(!a.sample || a.sample_dtype == DType::kI32 || a.sample_dtype == DType::kI64,
               "[dropout] expected samples as i32 or i64, got ", name_of(a.sample_dtype));
  if (a.rows == 0 || a.columns == 0) return;
  RETORT_CHECK(a.x && a.y, "[dropout] expected non-null x and y");
  dispatch("dropout", context, a, dropout_cpu, dropout_cuda);
}

}  // namespace retort::kernels
