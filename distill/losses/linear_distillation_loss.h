// The loss of a distillation step from what the last layers read, for vocabularies whose logits
// should never lie in memory all at once.
#pragma once
#include "distill/losses/distillation_loss.h"
#include "nn/inputs.h"

namespace retort::distill {

/// What goes into linear_distillation_loss. Undefined tensors mean what their comment says.
struct LinearDistillationLossArgs {
  Tensor features;          // (N, m) f32, bf16 or f64: what the student's last layer reads
  nn::Head head;            // weight (V, m), bias (V) or undefined, of the same dtype
  Tensor teacher_features;  // (N, n), of the teacher head's dtype. Undefined: see rows
  nn::Head teacher_head;    // weight (V, n), bias (V) or undefined
  /// Targets, lambda and all else that is told of rows. teacher_logits may be given in place of a
  /// teacher's features and head; with neither there is no teacher term: cross entropy, which over
  /// masked rows is the masked-LM loss. student_logits and consume_logits have no meaning here.
  DistillationLossArgs rows;
  /// Bytes that logits may take at a time, of student and teacher together; 0: default_logits_memory
  std::int64_t logits_memory = 0;
  /// false: one sweep computes loss and gradients, and the weight's waits for backward in memory of
  /// its size. true: backward multiplies again, and adds to the weight's gradient where it lies.
  bool recompute = false;
};

/// What distillation_loss gives, and how the rows were cut. invalid_row is i32 (chunks): 1 + first
/// row, counted from the chunk's first, that could not be computed (CUDA), 0 if none.
struct LinearDistillationLossResult : DistillationLossResult {
  std::int64_t chunk_rows = 0;
};

/// distillation_loss of s = features weight^T + bias and t = the same of the teacher:
///
///   total = (1/Z) sum_i w_i m_i [(1 - lambda_i) CE_i + lambda_i tau_i^n D(p_T^tau || p_S^tau)_i]
///   dfeatures = ds weight   dweight = ds^T features   dbias = sum of ds over rows
///
/// Rows are taken in chunks of as many as logits_memory holds: their logits are multiplied out, the
/// fused loss writes the gradient over the student's, and that is multiplied on at once. Every
/// statistic of distillation_loss is there. Differentiable with respect to features, weight and
/// bias; a weight that others use, too (an embedding tied to the head), gets one more term.
///
/// Memory    logits_memory (at least one row), and with gradients
///             one sweep   (V, m), (N, m) and (V) from forward to backward
///             recompute   (V) in backward, nothing from forward to backward
/// Cost      products of 2 N V m operations: 3, and one of the teacher; recompute: 4, and two.
///           Each chunk reads the weights and reads and writes the weight's gradient.
/// Numerics  as distillation_loss; equal bits for equal logits_memory and mode. Other cuts differ by
///           rounding: the weight's gradient is a sum over chunks, in its dtype.
/// Errors    those of distillation_loss, with the rows of the chunk in front; Error for shapes,
///           dtypes or devices of features and heads that do not fit.
/// Source    Wijmans et al. 2024, arXiv:2411.09009 (no logits in memory); Hsu et al. 2024,
///           arXiv:2410.10989, section 3.2 (chunks, gradients in the forward pass).
LinearDistillationLossResult linear_distillation_loss(const LinearDistillationLossArgs& args);

/// The same loss in plain differentiable ops, all logits at once: its documentation and oracle.
DistillationLossResult linear_distillation_loss_composed(const LinearDistillationLossArgs& args);

/// What logits may take where nobody says: on the CPU what its caches hold, on CUDA enough rows for
/// a product that keeps the device busy.
std::int64_t default_logits_memory(Device device);

/// Rows of a chunk: as many as `memory` holds at `row_bytes` each, at least one, the chunks about
/// equal.
std::int64_t chunk_rows_of(std::int64_t rows, std::int64_t row_bytes, std::int64_t memory);

}  // namespace retort::distill
