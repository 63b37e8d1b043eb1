// How many rows a loss counts: its normalizer Z, known before the pass.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"

namespace retort::kernels {

/// *count = number of i with targets[i] != ignore_index and mask[i] != 0
///
/// Shapes    targets i32 (N); mask u8 (N) or null: all; count one f32. N = 0 gives 0.
/// Numerics  exact below 2^24 rows, then rounded to nearest.
/// Cost      reads 5 N bytes; one block.
/// Errors    Error on N < 0 or null targets (with N > 0) or count.
struct CountRowsArgs {
  const std::int32_t* targets = nullptr;
  const std::uint8_t* mask = nullptr;
  std::int32_t ignore_index = -100;
  std::int64_t rows = 0;  // N
  float* count = nullptr;
};
void count_rows_cpu(const Context& context, const CountRowsArgs& args);
extern CudaOp<CountRowsArgs> count_rows_cuda;

inline void count_rows(const Context& context, const CountRowsArgs& args) {
  RETORT_CHECK(args.rows >= 0, "[count_rows] expected rows >= 0, got ", args.rows);
  RETORT_CHECK(args.count && (args.targets || args.rows == 0),
               "[count_rows] expected non-null targets and count");
  dispatch("count_rows", context, args, count_rows_cpu, count_rows_cuda);
}

}  // namespace retort::kernels
