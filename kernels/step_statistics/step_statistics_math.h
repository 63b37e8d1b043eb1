// What a column is made of, shared by CPU and CUDA.
#pragma once
#include "kernels/common/hd.h"
#include "kernels/step_statistics/step_statistics.h"

namespace retort::kernels {

/// Whether a column is summed over the rows.
RETORT_HD bool step_column_has_rows(const StepColumn& c) {
  return c.kind == StepColumn::Kind::kSumF32 || c.kind == StepColumn::Kind::kSumU8 ||
         c.kind == StepColumn::Kind::kCount;
}

/// What row i adds to a column that has rows.
RETORT_HD double step_column_of_row(const StepColumn& c, std::int64_t i) {
  if (c.kind == StepColumn::Kind::kCount) {
    const auto* const targets = static_cast<const std::int32_t*>(c.values);
    const bool counts = (targets == nullptr || targets[i] != c.ignore_index) &&
                        (c.mask == nullptr || c.mask[i] != 0);
    return counts ? 1.0 : 0.0;
  }
  if (c.values == nullptr) return 0;
  return c.kind == StepColumn::Kind::kSumF32
             ? static_cast<double>(static_cast<const float*>(c.values)[i])
             : static_cast<double>(static_cast<const std::uint8_t*>(c.values)[i]);
}

/// A column that has none.
RETORT_HD double step_column_alone(const StepColumn& c) {
  switch (c.kind) {
    case StepColumn::Kind::kValueF32:
      return static_cast<double>(*static_cast<const float*>(c.values));
    case StepColumn::Kind::kValueF64: return *static_cast<const double*>(c.values);
    default: return c.number;
  }
}

}  // namespace retort::kernels
