#include "kernels/count_rows/count_rows.h"

namespace retort::kernels {

CudaOp<CountRowsArgs> count_rows_cuda = nullptr;

void count_rows_cpu(const Context&, const CountRowsArgs& a) {
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < a.rows; ++i)
    count += a.targets[i] != a.ignore_index && (a.mask == nullptr || a.mask[i] != 0);
  *a.count = static_cast<float>(count);
}

}  // namespace retort::kernels
