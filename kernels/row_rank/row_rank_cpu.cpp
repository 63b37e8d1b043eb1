#include "kernels/row_rank/row_rank.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/parallel.h"

namespace retort::kernels {

CudaOp<RowRankArgs> row_rank_cuda = nullptr;

namespace {

template <class T>
std::int32_t rank_of(const T* s, std::int64_t classes, std::int64_t target) {
  const auto mine = to_float(s[target]);
  if (std::isnan(mine)) return static_cast<std::int32_t>(classes);
  // By what is not less, and not by what is larger: NaN comes before every number.
  std::int32_t before = 0;
  for (std::int64_t v = 0; v < target; ++v) before += !(to_float(s[v]) < mine);
  for (std::int64_t v = target + 1; v < classes; ++v) before += !(to_float(s[v]) <= mine);
  return before;
}

}  // namespace

void row_rank_cpu(const Context&, const RowRankArgs& a) {
  for (std::int64_t n = 0; n < a.rows; ++n)
    RETORT_CHECK(a.targets[n] == a.ignore_index || (a.targets[n] >= 0 && a.targets[n] < a.classes),
                 "[row_rank] expected targets in [0, ", a.classes, ") or ", a.ignore_index,
                 ", got ", a.targets[n], " in row ", n);
  dispatch_float(a.dtype, "row_rank", [&]<class T>() {
    parallel_for(a.rows, std::max<std::int64_t>(1, (std::int64_t{1} << 16) / a.classes),
                 [=](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t n = begin; n < end; ++n)
                     a.rank[n] = a.targets[n] == a.ignore_index
                                     ? -1
                                     : rank_of(static_cast<const T*>(a.logits) + n * a.pitch,
                                               a.classes, a.targets[n]);
                 });
  });
}

}  // namespace retort::kernels
