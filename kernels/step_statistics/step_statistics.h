// The numbers of one training step, summed on the device into a row that the host reads later.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// What a row of step numbers holds, as doubles.
enum StepNumber : int {
  kStepLoss,            // the step's loss
  kStepCe,              // sum over its samples, nats
  kStepKd,              // sum over its samples, nats, with tau^2
  kStepCorrect,         // how many samples the student got right
  kStepTeacherCorrect,  // and the teacher
  kStepSamples,         // how many samples count
  kStepNumbers = 8      // a row: 64 bytes
};

/// row = numbers + 8 * (slot ? *slot : 0);  row[k] = (add ? row[k] : 0) + this part's k
///
/// Shapes    loss one element of loss_dtype (f32 or f64); ce, kd f32 (N), correct, teacher_correct
///           u8 (N), each null where there is none (it counts as 0); numbers f64 rows of 8.
///           confidence f32 (N), the student's largest probability: a row of 0 was ignored by the
///           loss and is no sample; null: all rows count.
/// Units     slot is read on the device, so that every replay of a captured step fills another row.
/// Numerics  sums in double, in an order fixed by N: lane l of 256 takes elements l, l + 256, ...;
///           lanes are added as a warp does (halves, then quarters, ...) and the 8 warps in turn.
///           CPU and CUDA give the same bits.
/// Cost      reads 14 N bytes; one block.
/// Errors    Error on N < 0, null loss or numbers, or another loss_dtype.
struct StepStatisticsArgs {
  const void* loss = nullptr;
  const float* ce = nullptr;
  const float* kd = nullptr;
  const float* confidence = nullptr;
  const std::uint8_t* correct = nullptr;
  const std::uint8_t* teacher_correct = nullptr;
  double* numbers = nullptr;
  const std::int64_t* slot = nullptr;
  std::int64_t rows = 0;
  bool add = false;  // a further micro-batch of the same step
  DType loss_dtype = DType::kF32;
};
void step_statistics_cpu(const Context& context, const StepStatisticsArgs& args);
extern CudaOp<StepStatisticsArgs> step_statistics_cuda;

inline void step_statistics(const Context& context, const StepStatisticsArgs& args) {
  RETORT_CHECK(args.rows >= 0, "[step_statistics] expected rows >= 0, got ", args.rows);
  RETORT_CHECK(args.loss && args.numbers, "[step_statistics] expected non-null loss and numbers");
  RETORT_CHECK(args.loss_dtype == DType::kF32 || args.loss_dtype == DType::kF64,
               "[step_statistics] expected a loss of f32 or f64, got ", name_of(args.loss_dtype));
  dispatch("step_statistics", context, args, step_statistics_cpu, step_statistics_cuda);
}

}  // namespace retort::kernels
