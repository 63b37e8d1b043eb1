#include "engine/ops/gather_rows.h"

#include <vector>

#include "engine/autograd/autograd.h"
#include "engine/ops/matmul.h"
#include "engine/ops/view.h"
#include "engine/runtime/device.h"
#include "kernels/gather_rows/gather_rows.h"

namespace retort {
namespace {

Shape with_columns(const Tensor& indices, std::int64_t columns) {
  Shape shape = indices.shape();
  shape.push_back(columns);
  return shape;
}

void check(const Tensor& table, const Tensor& indices) {
  RETORT_CHECK(table.rank() == 2, "[gather_rows] expected a table (R, C), got ", table.shape());
  RETORT_CHECK(
      indices.defined() && indices.dtype() == DType::kI32 && indices.device() == table.device(),
      "[gather_rows] expected i32 indices on ", name_of(table.device()), ", got ",
      indices.defined() ? join(name_of(indices.dtype()), " on ", name_of(indices.device()))
                        : std::string("an undefined tensor"));
}

}  // namespace

Tensor gather_rows(const Tensor& table, const Tensor& indices_given, const Tensor& invalid_row) {
  check(table, indices_given);
  RETORT_CHECK(
      !invalid_row.defined() || (invalid_row.dtype() == DType::kI32 && invalid_row.numel() == 1 &&
                                 invalid_row.device() == table.device()),
      "[gather_rows] expected invalid_row as one i32 on ", name_of(table.device()));
  const Tensor indices = indices_given.contiguous().detach();
  const std::int64_t rows = indices.numel(), columns = table.dim(1);
  const Tensor y = Tensor::empty(with_columns(indices, columns), table.dtype(), table.device());
  kernels::gather_rows(context_of(table.device()),
                       {y.raw(), table.raw(), indices.data<std::int32_t>(), rows, columns,
                        table.dim(0), columns, table.row_pitch(), table.dtype(),
                        invalid_row.defined() ? invalid_row.data<std::int32_t>() : nullptr});
  if (!needs_grad(table)) return y;
  // Saved: the indices.
  return record(
      "gather_rows", y, {table}, [indices, rows, shape = table.shape()](const Tensor& dy) {
        const Tensor dtable = gradient_to_add_to(0, shape, dy.dtype(), dy.device());
        kernels::scatter_rows(context_of(dy.device()),
                              {dtable.raw(), dy.raw(), indices.data<std::int32_t>(), rows, shape[1],
                               shape[0], dtable.row_pitch(), dy.row_pitch(), dy.dtype()});
        return std::vector<Tensor>{dtable};
      });
}

Tensor gather_rows_composed(const Tensor& table, const Tensor& indices) {
  check(table, indices);
  const std::vector<std::int32_t> at = indices.to_vector<std::int32_t>();
  const std::int64_t classes = table.dim(0);
  std::vector<double> one_hot(at.size() * static_cast<std::size_t>(classes));
  for (std::size_t n = 0; n < at.size(); ++n)
    one_hot[n * static_cast<std::size_t>(classes) + static_cast<std::size_t>(at[n])] = 1;
  const Tensor rows =
      Tensor::from(one_hot, {indices.numel(), classes}).to(table.dtype()).to(table.device());
  return reshape(matmul(rows, table), with_columns(indices, table.dim(1)));
}

}  // namespace retort
