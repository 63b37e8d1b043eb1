#include "engine/ops/axpy.h"

#include "engine/runtime/device.h"
#include "kernels/axpy/axpy.h"

namespace retort {

void add_into(const Tensor& y, const Tensor& x, double a) {
  RETORT_CHECK(x.shape() == y.shape(), "[add_into] expected ", y.shape(), ", got ", x.shape());
  RETORT_CHECK(x.dtype() == y.dtype(), "[add_into] expected ", name_of(y.dtype()), ", got ",
               name_of(x.dtype()));
  RETORT_CHECK(x.device() == y.device(), "[add_into] expected a tensor on ", name_of(y.device()),
               ", got one on ", name_of(x.device()));
  const Context& context = context_of(y.device());
  if (y.is_contiguous() && x.is_contiguous())
    kernels::axpy(context, {y.raw(), x.raw(), a, y.numel(), y.dtype()});
  else
    kernels::axpy_rows(context, {y.raw(), x.raw(), a, y.rows(), y.dim(-1), y.row_pitch(),
                                 x.row_pitch(), y.dtype()});
  y.round_bf16_copy();
}

}  // namespace retort
