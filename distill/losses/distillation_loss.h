// The loss of a distillation step: hard labels and the teacher's soft targets, weighted per sample.
#pragma once
#include <string>

#include "distill/losses/divergence.h"
#include "engine/tensor/tensor.h"

namespace retort::distill {

/// What goes into distillation_loss. Undefined tensors mean what their comment says.
struct DistillationLossArgs {
  Tensor student_logits;  // (N, V) f32, bf16 or f64; rows may be pitched
  Tensor teacher_logits;  // (N, V); converted if its dtype differs. Undefined: no teacher term
  Tensor targets;         // i32 (N). Undefined: no label term
  Tensor lambda;          // f32 scalar or (S), the teacher's share. May be undefined where only one
                          // of teacher and targets is given
  Tensor temperature;     // f32 scalar or (S), > 0. Undefined: 1
  Tensor mask;            // u8 (N): rows of 0 do not count. Undefined: all count
  Tensor weights;         // f32 scalar or (S). Undefined: 1
  Tensor sample_of_row;   // i32 (N), in [0, S). Undefined: S = N, row i is sample i
  Tensor normalizer;      // f32 scalar Z. Undefined: the number of rows that count
  AnyDivergence divergence = Divergence::kForwardKl;
  double parameter = -1;        // of the divergence; -1: kernels::default_parameter
  std::int32_t tau_power = -1;  // n; -1: the divergence's own (Note [Powers of tau])
  std::int32_t ignore_index = -100;
  bool statistics = true;       // false: only `total` (and invalid_row) is filled
  bool consume_logits = false;  // write the gradient over student_logits
};

/// `total` is differentiable with respect to student_logits. All else is detached, on the device of
/// the logits; ignored rows hold 0. Teacher statistics are at temperature 1.
struct DistillationLossResult {
  Tensor total;                   // scalar, f32 (f64 for f64 logits)
  Tensor ce, kd;                  // (N) f32, nats; kd includes tau^n
  Tensor student_argmax;          // i32 (N)
  Tensor student_correct;         // u8 (N)
  Tensor student_confidence;      // largest probability
  Tensor teacher_argmax;          // i32 (N); -1 without a teacher
  Tensor teacher_correct;         // u8 (N)
  Tensor teacher_confidence;      // largest probability
  Tensor teacher_log_confidence;  // its logarithm
  Tensor teacher_max_logit;
  Tensor teacher_margin;      // largest minus second largest probability
  Tensor teacher_entropy;     // nats
  Tensor teacher_p_true;      // probability of the target
  Tensor teacher_log_p_true;  // its logarithm; the teacher's own loss is -this
  Tensor invalid_row;  // i32 scalar: 1 + first row that could not be computed (CUDA), 0 if none
};

/// total = (1/Z) sum_i w_i m_i [(1 - lambda_i) CE_i + lambda_i tau_i^n D(p_T^tau || p_S^tau)_i]
///
/// The contract of the numbers (masking, infinities, sums, errors) is that of
/// kernels::DistillLossArgs. The gradient is computed in the same pass when it is wanted, and only
/// scaled by the upstream gradient in backward.
///
/// Memory    a gradient of the logits' size and pitch; none with consume_logits: then
///           student_logits must be the only handle on its storage (move it into the args), and
///           reading it afterwards throws.
/// Errors    Error for shapes, dtypes or devices that do not fit, naming the field; for
///           consume_logits with shared logits.
DistillationLossResult distillation_loss(const DistillationLossArgs& args);

/// The same loss in plain differentiable ops: its documentation and oracle. Finite logits only;
/// reads lambda, temperature, mask and the like on the host. Fills total, ce and kd. Errors    kUsage
/// for a divergence that is written in its functor alone, such as one from outside.
DistillationLossResult distillation_loss_composed(const DistillationLossArgs& args);

}  // namespace retort::distill
