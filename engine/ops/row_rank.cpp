#include "engine/ops/row_rank.h"

#include "engine/runtime/device.h"
#include "kernels/row_rank/row_rank.h"

namespace retort {

Tensor row_rank(const Tensor& logits, const Tensor& targets_given, std::int32_t ignore_index) {
  RETORT_CHECK(logits.rank() >= 1, "[row_rank] expected logits (..., V), got a scalar");
  const Shape rows(std::span(logits.shape().begin(), logits.shape().end() - 1));
  RETORT_CHECK(
      targets_given.defined() && targets_given.shape() == rows &&
          targets_given.dtype() == DType::kI32 && targets_given.device() == logits.device(),
      "[row_rank] expected targets ", rows, " of i32 on ", name_of(logits.device()), ", got ",
      targets_given.defined() ? join(targets_given.shape(), " of ", name_of(targets_given.dtype()),
                                     " on ", name_of(targets_given.device()))
                              : std::string("an undefined tensor"));
  const Tensor targets = targets_given.contiguous();
  const Tensor rank = Tensor::empty(rows, DType::kI32, logits.device());
  kernels::row_rank(
      context_of(logits.device()),
      {rank.data<std::int32_t>(), logits.raw(), targets.data<std::int32_t>(), rank.numel(),
       logits.dim(-1), logits.row_pitch(), ignore_index, logits.dtype()});
  return rank;
}

}  // namespace retort
