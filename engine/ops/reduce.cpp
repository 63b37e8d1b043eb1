#include "engine/ops/reduce.h"

#include "engine/autograd/autograd.h"
#include "engine/runtime/device.h"
#include "kernels/reduce/reduce.h"

namespace retort {
namespace {

using kernels::Sum;

Tensor reduce(const char* name, Sum kind, const Tensor& x, const Shape& result, double factor) {
  Tensor y = Tensor::empty(result, x.dtype(), x.device());
  const std::int64_t columns = x.rank() == 0 ? 1 : x.dim(-1);
  // rows() is 0 where the last dimension is; kRows still has its results (zeros) to write.
  const std::int64_t rows = kind == Sum::kRows ? y.numel() : x.rows();
  kernels::sum(context_of(x.device()),
               {kind, y.raw(), x.raw(), rows, columns, x.row_pitch(), factor, x.dtype()});
  if (!needs_grad(x)) return y;
  // Saved: the shape. Each element of dx is the factor times the dy it was added to.
  return record(name, y, {x},
                [kind, shape = x.shape(), rows, columns, factor](const Tensor& given) {
                  const Tensor dy = given.contiguous();
                  const Tensor dx = Tensor::empty(shape, dy.dtype(), dy.device());
                  kernels::expand(context_of(dy.device()),
                                  {kind, dx.raw(), dy.raw(), rows, columns, factor, dy.dtype()});
                  return std::vector<Tensor>{dx};
                });
}

}  // namespace

Tensor sum(const Tensor& x) { return reduce("sum", Sum::kAll, x, {}, 1); }

Tensor mean(const Tensor& x) {
  RETORT_CHECK(x.numel() > 0, "[mean] expected at least one element, got ", x.shape());
  return reduce("mean", Sum::kAll, x, {}, 1.0 / static_cast<double>(x.numel()));
}

Tensor sum_rows(const Tensor& x) {
  RETORT_CHECK(x.rank() >= 1, "[sum_rows] expected at least one dimension, got a scalar");
  return reduce("sum_rows", Sum::kRows, x,
                Shape(std::span(x.shape().begin(), static_cast<std::size_t>(x.rank() - 1))), 1);
}

Tensor column_sum(const Tensor& x) {
  RETORT_CHECK(x.rank() >= 1, "[column_sum] expected at least one dimension, got a scalar");
  return reduce("column_sum", Sum::kColumns, x, {x.dim(-1)}, 1);
}

}  // namespace retort
