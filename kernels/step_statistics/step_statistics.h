// The numbers of one training step, summed on the device into a row that the host reads later.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

inline constexpr int kStepColumns = 16;  // of a row: 128 bytes

/// What one number of a row is made from.
struct StepColumn {
  enum class Kind : std::uint8_t {
    kSumF32,    // sum of f32 (N)
    kSumU8,     // sum of u8 (N)
    kCountI32,  // how many of i32 (N) are not ignore_index, where mask u8 (N) is not 0 or null
    kScalarF32,
    kScalarF64,
    kConstant,
  };
  Kind kind = Kind::kConstant;
  const void* values = nullptr;  // null where N = 0
  const std::uint8_t* mask = nullptr;
  double constant = 0;

  static StepColumn sum(const float* values) { return {Kind::kSumF32, values, nullptr, 0}; }
  static StepColumn sum(const std::uint8_t* values) { return {Kind::kSumU8, values, nullptr, 0}; }
  static StepColumn counted(const std::int32_t* targets, const std::uint8_t* mask) {
    return {Kind::kCountI32, targets, mask, 0};
  }
  static StepColumn scalar(const void* value, DType dtype) {
    RETORT_CHECK(dtype == DType::kF32 || dtype == DType::kF64,
                 "[step_statistics] expected a scalar of f32 or f64, got ", name_of(dtype));
    return {dtype == DType::kF64 ? Kind::kScalarF64 : Kind::kScalarF32, value, nullptr, 0};
  }
  static StepColumn constant_of(double value) { return {Kind::kConstant, nullptr, nullptr, value}; }
};

/// row = numbers + kStepColumns * (slot ? *slot : 0);
/// row[k] = (add ? row[k] : 0) + this part's column k
///
/// Shapes    columns: `count` of them are made, the others of a row are left alone; numbers f64
/// rows
///           of kStepColumns.
/// Units     slot is read on the device, so that every replay of a captured step fills another row.
/// Numerics  sums in double, in an order fixed by N: lane l of 256 takes elements l, l + 256, ...;
///           lanes are added as a warp does (halves, then quarters, ...) and the 8 warps in turn.
///           CPU and CUDA give the same bits.
/// Cost      reads the columns; one block.
/// Errors    Error on N < 0, null numbers, a count outside [1, kStepColumns], or a scalar of null.
struct StepStatisticsArgs {
  StepColumn columns[kStepColumns] = {};
  int count = 0;
  std::int32_t ignore_index = -100;
  double* numbers = nullptr;
  const std::int64_t* slot = nullptr;
  std::int64_t rows = 0;  // N
  bool add = false;       // a further part of the same step
};
void step_statistics_cpu(const Context& context, const StepStatisticsArgs& args);
extern CudaOp<StepStatisticsArgs> step_statistics_cuda;

inline void step_statistics(const Context& context, const StepStatisticsArgs& args) {
  RETORT_CHECK(args.rows >= 0, "[step_statistics] expected rows >= 0, got ", args.rows);
  RETORT_CHECK(args.numbers, "[step_statistics] expected non-null numbers");
  RETORT_CHECK(args.count >= 1 && args.count <= kStepColumns, "[step_statistics] expected 1 to ",
               kStepColumns, " columns, got ", args.count);
  for (int k = 0; k < args.count; ++k) {
    const StepColumn& c = args.columns[k];
    const bool needs = c.kind == StepColumn::Kind::kScalarF32 ||
                       c.kind == StepColumn::Kind::kScalarF64 ||
                       (c.kind != StepColumn::Kind::kConstant && args.rows > 0);
    RETORT_CHECK(c.values || !needs, "[step_statistics] expected values for column ", k,
                 ", got null");
  }
  dispatch("step_statistics", context, args, step_statistics_cpu, step_statistics_cuda);
}

}  // namespace retort::kernels
