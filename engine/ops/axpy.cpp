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
  RETORT_CHECK(y.is_contiguous(), "[add_into] expected a contiguous destination");
  const Tensor from = x.contiguous();
  kernels::axpy(context_of(y.device()), {y.raw(), from.raw(), a, y.numel(), y.dtype()});
  y.round_bf16_copy();
}

}  // namespace retort
