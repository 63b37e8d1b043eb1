// The fused distillation loss: soft-target divergence and cross entropy, their gradient, and what
// a curriculum wants to know about each row, in one pass over the logits.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"
#include "kernels/distill_loss/divergence.h"

namespace retort::kernels {

/// Rows of the f32 statistics block (kRowStatistics, N). Teacher statistics are at tau = 1.
enum RowStatistic : int {
  kStatCe,                    // -log softmax(s)[y], nats
  kStatKd,                    // tau^n D(p, q), nats
  kStatStudentConfidence,     // max softmax(s)
  kStatTeacherConfidence,     // max softmax(t)
  kStatTeacherLogConfidence,  // its logarithm
  kStatTeacherMaxLogit,       // max t
  kStatTeacherMargin,         // largest minus second largest probability (1 if V = 1)
  kStatTeacherEntropy,        // nats
  kStatTeacherPTrue,          // softmax(t)[y]
  kStatTeacherLogPTrue,       // its logarithm; the teacher's loss is -this
  kRowStatistics
};

/// Loss of N rows, its gradient with respect to the student's logits, and per-row statistics.
///
///   p = softmax(t / tau_i)   q = softmax(s / tau_i)   CE_i = -log softmax(s)[y_i]
///   total     = sum_i c_i [(1 - lambda_i) CE_i + lambda_i tau_i^n D(p, q)]       c_i = w_i m_i / Z
///   ds[i, v]  = c_i [(1 - lambda_i) (softmax(s)[v] - [v = y_i])
///                    + lambda_i tau_i^(n - 1) (h_v - q_v sum_u h_u)],    h_v = q_v dD/dq_v
///   with the forward KL:  n = 2, h_v - q_v sum h = q_v - p_v
///   n: tau_power, unless it is -1 that of the divergence (Note [Powers of tau])
///
/// Shapes    student, teacher, dstudent (N, V), rows `*_pitch` elements apart (>= V), same dtype.
///           Columns beyond V do not exist; `gradient_padding` of them are set to 0 in dstudent.
///           targets, mask (N). lambda, temperature, weights (S) with stride 1, or one value with
///           stride 0; S = N, or sample_of_row (N) names each row's. statistics (kRowStatistics,
///           N), argmax and correct (2, N): student, then teacher. total: one f32 (f64 for f64).
///           Null: teacher, if lambda is 0 everywhere (no second term; null lambda means 0);
///           targets, for no first term (null lambda means 1); mask, weights (1), temperature (1),
///           sample_of_row (identity), normalizer (Z = sum m); dstudent (forward only); statistics,
///           argmax, correct (all three or none); invalid_row.
/// Units     nats; tau without unit, > 0; lambda and weights of any sign. All are finite.
/// Masking   m_i = 0 if mask[i] is 0 or targets[i] == ignore_index. Such a row is not read: loss,
///           gradient and statistics are 0, and it does not count in the default Z. All rows
///           ignored: total 0. A term whose coefficient is 0 is skipped: it adds nothing, even
///           where it is infinite (its statistics are still measured).
///           A teacher logit of -inf contributes 0; a student logit of -inf where p > 0 gives a
///           loss of +inf with the gradient of the formula. A student row that is -inf everywhere:
///           CE and D are +inf and the row's gradient is 0. A teacher row that is -inf everywhere:
///           no distribution, D = 0, no gradient of it, its statistics 0 and argmax -1.
///           NaN or +inf in a row that counts gives NaN.
/// Numerics  row maximum subtracted; f32 accumulation for f32 and bf16, f64 for f64. The forward
///           KL is accumulated as e * ((t - m_t) - (s - m_s)) / tau, never as a difference of large
///           sums, so D(p, p) is 0. Equal logits: the argmax is the lowest index. Sums in an order
///           fixed by (N, V) and, on CUDA, how rows lie against 16 bytes: the same bits for any
///           thread count and in every run.
///           High temperatures: D shrinks as 1 / tau^2, f32 rounding does not. A row's tau^2 D (not
///           its gradient) is off by up to 2e-7 tau^2 nats with f32 and bf16 logits: of a standard
///           deviation of 3, by 2e-6 of itself at tau 10, 2e-4 at 100, 2e-2 at 1,000; from 3,000
///           on a KL may come out below 0. Measured up to V = 10,000. f64 has no such error.
/// Cost      reads 2NV, writes NV elements; on CUDA for V > 1024 only where clusters exist (sm_90)
///           and eight blocks hold a row pair (V up to 458,745 in bf16), else it reads 4NV through
///           L2. Four exponentials a class for tau 1, 2 and 4. Scratch 4 bytes a row on CUDA.
///           Divergences other than the forward KL read the logits once more, from where they lie;
///           on the CPU those from outside are computed element by element, not in vectors.
/// Errors    Error if V < 1, a pitch < V, a parameter outside the divergence's range, a tau_power
///           outside [-1, 2]; on CUDA if a divergence from outside has no kernel there.
///           CPU: Error naming row and value if a target is outside [0, V), tau is not finite and
///           > 0, lambda or a weight is not finite, lambda != 0 without a teacher, sample_of_row
///           outside [0, S), or Z is not finite and > 0 with a row that counts; nothing is written
///           then. CUDA: that row's loss and gradient, and the total, are NaN, and invalid_row is
///           1 + the first such row (0: none).
/// Aliasing  dstudent may be student itself.
/// Source    Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 2 (tau^2). Skew divergences:
///           Ko et al. 2024, arXiv:2402.03898.
struct DistillLossArgs {
  const void* student = nullptr;
  const void* teacher = nullptr;
  void* dstudent = nullptr;
  std::int64_t student_pitch = 0;
  std::int64_t teacher_pitch = 0;
  std::int64_t dstudent_pitch = 0;
  std::int64_t gradient_padding = 0;
  const std::int32_t* targets = nullptr;
  const float* lambda = nullptr;
  const float* temperature = nullptr;
  const std::uint8_t* mask = nullptr;
  const float* weights = nullptr;
  const std::int32_t* sample_of_row = nullptr;
  const float* normalizer = nullptr;
  std::int32_t lambda_stride = 0;
  std::int32_t temperature_stride = 0;
  std::int32_t weights_stride = 0;
  std::int32_t ignore_index = -100;
  std::int64_t samples = 0;  // S; read only with sample_of_row
  void* total = nullptr;
  std::int32_t* invalid_row = nullptr;
  float* statistics = nullptr;
  std::int32_t* argmax = nullptr;
  std::uint8_t* correct = nullptr;
  std::int64_t rows = 0;     // N
  std::int64_t classes = 0;  // V
  DType dtype = DType::kF32;
  AnyDivergence divergence = Divergence::kForwardKl;
  double parameter = 0;
  std::int32_t tau_power = -1;  // n: 0, 1 or 2; -1: the divergence's
};

/// The power of tau with -1 resolved, which kernels cannot do: a divergence from outside is known
/// to the host alone.
constexpr std::int32_t tau_power_of(const DistillLossArgs& args) {
  return args.tau_power == -1 ? facts_of(args.divergence).tau_power : args.tau_power;
}

void distill_loss_cpu(const Context& context, const DistillLossArgs& args);
extern CudaOp<DistillLossArgs> distill_loss_cuda;

inline void distill_loss(const Context& context, const DistillLossArgs& args) {
  RETORT_CHECK(args.rows >= 0, "[distill_loss] expected rows >= 0, got ", args.rows);
  RETORT_CHECK(args.classes >= 1 && args.classes < std::int64_t{1} << 31,
               "[distill_loss] expected classes in [1, 2^31), got ", args.classes);
  RETORT_CHECK(args.student || args.rows == 0, "[distill_loss] expected student logits, got null");
  RETORT_CHECK(args.total, "[distill_loss] expected a place for the total, got null");
  RETORT_CHECK(args.teacher || args.targets || args.rows == 0,
               "[distill_loss] expected a teacher, targets, or both");
  RETORT_CHECK(args.lambda || !args.teacher || !args.targets,
               "[distill_loss] expected lambda: both terms are present");
  RETORT_CHECK(args.rows <= 1 || args.student_pitch >= args.classes,
               "[distill_loss] expected a student pitch >= ", args.classes, ", got ",
               args.student_pitch);
  RETORT_CHECK(!args.teacher || args.rows <= 1 || args.teacher_pitch >= args.classes,
               "[distill_loss] expected a teacher pitch >= ", args.classes, ", got ",
               args.teacher_pitch);
  RETORT_CHECK(!args.dstudent || args.rows <= 1 ||
                   args.dstudent_pitch >= args.classes + args.gradient_padding,
               "[distill_loss] expected a gradient pitch >= ", args.classes + args.gradient_padding,
               ", got ", args.dstudent_pitch);
  RETORT_CHECK(!args.statistics == !args.argmax && !args.argmax == !args.correct,
               "[distill_loss] expected all of statistics, argmax and correct, or none");
  RETORT_CHECK(args.dstudent != args.student || args.dstudent_pitch == args.student_pitch,
               "[distill_loss] expected the pitch of the student's logits for a gradient in place");
  RETORT_CHECK(args.tau_power >= -1 && args.tau_power <= 2,
               "[distill_loss] expected a power of tau of 0, 1 or 2, or -1, got ", args.tau_power);
  const DivergenceFacts& facts = facts_of(args.divergence);
  RETORT_CHECK(in_range(facts, args.parameter), "[distill_loss] expected a parameter in ",
               facts.above_least ? "(" : "[", facts.least, ", ", facts.most, ") for ", facts.name,
               ", got ", args.parameter);
  const DivergenceOps* const outside = args.divergence.outside;
  RETORT_CHECK_AS(kDevice,
                  outside == nullptr || outside->cuda != nullptr || context.device == Device::kCpu,
                  "[distill_loss] the divergence ", facts.name,
                  " has no CUDA kernel: nobody compiled it with divergence.cuh");
  dispatch("distill_loss", context, args, distill_loss_cpu,
           outside != nullptr ? outside->cuda : distill_loss_cuda);
}

/// *count := how many of the N rows count: mask[i] is not 0 and targets[i] is not ignore_index. The
/// Z that distill_loss takes where it is given no normalizer; to be called where a batch comes in
/// slices, or is spread over devices, that all divide by the Z of the whole.
///
/// Shapes    targets i32, mask u8 (N), each null for no such condition; count one f32.
/// Numerics  exact up to 2^24 rows, then rounded to f32.
/// Cost      reads 5 N bytes; one launch of one block.
/// Errors    Error if N < 0 or count is null; on CUDA if N is 2^31 or more.
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
  RETORT_CHECK(args.count, "[count_rows] expected a place for the count, got null");
  dispatch("count_rows", context, args, count_rows_cpu, count_rows_cuda);
}

/// x[r, c] := x[r, c] * scale, scale read from the device; nothing is touched where it is 1.
///
/// Shapes    x (rows, columns), rows `pitch` elements apart; scale: one f32 (f64 for f64).
/// Cost      reads and writes rows * columns elements, or 0 if scale is 1.
struct ScaleRowsArgs {
  void* x;
  const void* scale;
  std::int64_t rows, columns, pitch;
  DType dtype;
};

void scale_rows_cpu(const Context& context, const ScaleRowsArgs& args);
extern CudaOp<ScaleRowsArgs> scale_rows_cuda;

inline void scale_rows(const Context& context, const ScaleRowsArgs& args) {
  RETORT_CHECK(
      args.rows >= 0 && args.columns >= 0 && (args.rows <= 1 || args.pitch >= args.columns),
      "[scale_rows] expected rows, columns >= 0 and pitch >= columns, got ", args.rows, ", ",
      args.columns, ", ", args.pitch);
  if (args.rows == 0 || args.columns == 0) return;
  dispatch("scale_rows", context, args, scale_rows_cpu, scale_rows_cuda);
}

}  // namespace retort::kernels
