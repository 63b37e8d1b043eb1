// What distillation losses share: from tensors to the kernel's arguments and results.
#pragma once
#include "distill/losses/distillation_loss.h"

namespace retort::distill {

/// Of N rows on a device, whatever their logits come from.
/// Errors    Error for shapes, dtypes or devices that do not fit, naming the field.
void check_rows(const DistillationLossArgs& args, std::int64_t rows, bool has_teacher,
                Device device);

/// All that is not logits; slice_of: of rows [begin, end) alone, which the kernel counts from 0.
kernels::DistillLossArgs kernel_arguments(const DistillationLossArgs& args, std::int64_t rows,
                                          std::int64_t classes, DType dtype);
kernels::DistillLossArgs slice_of(const kernels::DistillLossArgs& all, std::int64_t begin,
                                  std::int64_t end);

/// The kernel's statistics of N rows in one block of each type, and as the result names them.
struct StatisticsBlocks {
  Tensor statistics, argmax, correct;  // (kRowStatistics, N) f32, (2, N) i32, (2, N) u8
  StatisticsBlocks() = default;
  StatisticsBlocks(std::int64_t rows, Device device);
  void fill_in(kernels::DistillLossArgs& args) const;
  void name(DistillationLossResult& result) const;
  /// Columns [begin, begin + part's rows) := part.
  void copy_from(const StatisticsBlocks& part, std::int64_t begin) const;
};

}  // namespace retort::distill
