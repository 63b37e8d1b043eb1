#include "engine/ops/segment_sum.h"

#include <vector>

#include "engine/autograd/autograd.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "engine/ops/view.h"
#include "engine/runtime/device.h"
#include "kernels/segment_sum/segment_sum.h"

namespace retort {
namespace {

void check(const char* name, const Tensor& x, const Tensor& starts) {
  RETORT_CHECK(x.rank() == 1 || x.rank() == 2, "[", name, "] expected x (N) or (N, C), got ",
               x.shape());
  RETORT_CHECK(starts.defined() && starts.rank() == 1 && starts.dim(0) >= 1 &&
                   starts.dtype() == DType::kI32 && starts.device() == x.device(),
               "[", name, "] expected starts (S + 1) of i32 on ", name_of(x.device()), ", got ",
               starts.defined() ? join(starts.shape(), " of ", name_of(starts.dtype()), " on ",
                                       name_of(starts.device()))
                                : std::string("an undefined tensor"));
}

Tensor apply(const char* name, const Tensor& x, const Tensor& starts, bool mean) {
  check(name, x, starts);
  const bool flat = x.rank() == 1;
  const std::int64_t segments = starts.dim(0) - 1, rows = x.dim(0), columns = flat ? 1 : x.dim(1);
  const Tensor y =
      Tensor::empty(flat ? Shape{segments} : Shape{segments, columns}, x.dtype(), x.device());
  kernels::segment_sum(context_of(x.device()),
                       {y.raw(), x.raw(), starts.data<std::int32_t>(), segments, rows, columns,
                        flat ? 1 : x.row_pitch(), mean, x.dtype()});
  if (!needs_grad(x)) return y;
  // Saved: starts.
  return record(name, y, {x}, [=, shape = x.shape(), starts = starts.detach()](const Tensor& dy) {
    const Tensor dx = Tensor::empty(shape, dy.dtype(), dy.device());
    kernels::segment_spread(context_of(dy.device()),
                            {dx.raw(), dy.raw(), starts.data<std::int32_t>(), segments, rows,
                             columns, flat ? 1 : dy.row_pitch(), mean, dy.dtype()});
    return std::vector<Tensor>{dx};
  });
}

}  // namespace

Tensor segment_sum(const Tensor& x, const Tensor& starts) {
  return apply("segment_sum", x, starts, false);
}
Tensor segment_mean(const Tensor& x, const Tensor& starts) {
  return apply("segment_mean", x, starts, true);
}

Tensor segment_starts(const Tensor& segment_of_row, std::int64_t segments) {
  RETORT_CHECK(segment_of_row.rank() == 1 && segment_of_row.dtype() == DType::kI32,
               "[segment_starts] expected segments of rows (N) of i32, got ",
               segment_of_row.shape(), " of ", name_of(segment_of_row.dtype()));
  RETORT_CHECK(segments >= 0, "[segment_starts] expected segments >= 0, got ", segments);
  const Tensor starts = Tensor::empty({segments + 1}, DType::kI32, segment_of_row.device());
  kernels::segment_starts(context_of(starts.device()),
                          {starts.data<std::int32_t>(), segment_of_row.data<std::int32_t>(),
                           segments, segment_of_row.dim(0)});
  return starts;
}

Tensor segment_sum_composed(const Tensor& x, const Tensor& starts, bool mean) {
  check("segment_sum", x, starts);
  const std::vector<std::int32_t> at = starts.to_vector<std::int32_t>();
  const Tensor rows = x.rank() == 1 ? reshape(x, {x.dim(0), 1}) : x;
  std::vector<Tensor> sums;
  for (std::size_t s = 0; s + 1 < at.size(); ++s) {
    const Tensor sum = column_sum(slice_rows(rows, at[s], at[s + 1]));
    const double n = at[s + 1] - at[s];
    sums.push_back(reshape(mean && n > 0 ? scale(sum, 1 / n) : sum, {1, rows.dim(1)}));
  }
  if (sums.empty())
    return Tensor::empty(x.rank() == 1 ? Shape{0} : Shape{0, x.dim(1)}, x.dtype(), x.device());
  const Tensor y = concatenate(sums);
  return x.rank() == 1 ? reshape(y, {y.dim(0)}) : y;
}

}  // namespace retort
