// The numbers of one training step, summed on the device into a row that the host reads later.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// What one number of a row is made of.
struct StepColumn {
  enum class Kind : std::uint8_t { kConstant, kValueF32, kValueF64, kSumF32, kSumU8, kCount };

  /// The sum of (N) values; of null, 0.
  static StepColumn sum(const float* values) { return {Kind::kSumF32, values}; }
  static StepColumn sum(const std::uint8_t* values) { return {Kind::kSumU8, values}; }
  /// How many rows count: target (N) other than ignore_index, mask (N) not 0. Null: all do.
  static StepColumn count(const std::int32_t* targets, const std::uint8_t* mask = nullptr,
                          std::int32_t ignore_index = -100) {
    return {Kind::kCount, targets, mask, ignore_index};
  }
  /// One element as it is.
  static StepColumn value(const float* one) { return {Kind::kValueF32, one}; }
  static StepColumn value(const double* one) { return {Kind::kValueF64, one}; }
  /// A number that the host knows.
  static StepColumn constant(double one) { return {Kind::kConstant, nullptr, nullptr, 0, one}; }

  Kind kind = Kind::kConstant;
  const void* values = nullptr;
  const std::uint8_t* mask = nullptr;
  std::int32_t ignore_index = 0;
  double number = 0;

  bool is_value() const { return kind == Kind::kValueF32 || kind == Kind::kValueF64; }
};
inline constexpr int kMaxStepColumns = 16;

/// row = numbers + pitch * (slot ? *slot : 0);  row[k] = (add ? row[k] : 0) + column k,  k < count
///
/// Shapes    columns of N rows each; numbers f64, rows `pitch` >= count apart. Elements of a row
///           from `count` on are not touched.
/// Units     those of the columns. slot is read on the device, so that every replay of a captured
///           step fills another row.
/// Numerics  sums in double, in an order fixed by N: lane l of 256 takes elements l, l + 256, ...;
///           lanes are added as a warp does (halves, then quarters, ...) and the 8 warps in turn.
///           CPU and CUDA give the same bits. NaN and infinities go into the sum.
/// Cost      reads each column once; one launch of one block.
/// Errors    Error on N < 0, more than 16 columns, a pitch below count, numbers or a value that is
///           null.
struct StepStatisticsArgs {
  StepColumn columns[kMaxStepColumns] = {};
  int count = 0;
  bool add = false;       // a further micro-batch of the same step
  std::int64_t rows = 0;  // N
  double* numbers = nullptr;
  std::int64_t pitch = 0;
  const std::int64_t* slot = nullptr;

  /// Appends a column.
  void push(const StepColumn& column) {
    RETORT_CHECK(count < kMaxStepColumns, "[step_statistics] expected at most ", kMaxStepColumns,
                 " columns");
    columns[count++] = column;
  }
};
void step_statistics_cpu(const Context& context, const StepStatisticsArgs& args);
extern CudaOp<StepStatisticsArgs> step_statistics_cuda;

inline void step_statistics(const Context& context, const StepStatisticsArgs& args) {
  RETORT_CHECK(args.rows >= 0, "[step_statistics] expected rows >= 0, got ", args.rows);
  RETORT_CHECK(args.count >= 0 && args.count <= kMaxStepColumns, "[step_statistics] expected 0 to ",
               kMaxStepColumns, " columns, got ", args.count);
  RETORT_CHECK(args.pitch >= args.count, "[step_statistics] expected a pitch >= ", args.count,
               ", got ", args.pitch);
  if (args.count == 0) return;
  RETORT_CHECK(args.numbers, "[step_statistics] expected non-null numbers");
  for (int k = 0; k < args.count; ++k)
    RETORT_CHECK(!args.columns[k].is_value() || args.columns[k].values,
                 "[step_statistics] expected a value for column ", k, ", got null");
  dispatch("step_statistics", context, args, step_statistics_cpu, step_statistics_cuda);
}

}  // namespace retort::kernels
