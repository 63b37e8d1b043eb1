// Softmax attention within sequences that lie end to end, and its gradients.
#pragma once
#include <cmath>
#include <cstdint>

#include "kernels/attention/attention_math.h"
#include "kernels/common/dispatch.h"
#include "kernels/common/dropout_args.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// For every sequence s, head h and row i of s, over the rows j of s (causal: j <= i):
///
///   z_ij = q_i . k_j / sqrt(D)     lse_i = log sum_j exp(z_ij)     p_ij = exp(z_ij - lse_i)
///   out_i = sum_j m_ij p_ij v_j    m_ij = 1 without dropout, else 1 / (1 - p) or 0 by attention_math.h
///
/// Shapes    q, k, v, out (N, H D), rows *_pitch elements apart, head h in columns h D .. (h + 1) D;
///           of `dtype` (f64, f32, bf16). starts (S + 1), ascending, 0 to N: sequence s is rows
///           starts[s] to starts[s + 1]; it may be empty. lse (H, N), f64 for f64, else f32; null:
///           not wanted. Rows of no sequence get out = 0 and lse = 0.
/// Masking   a query whose z are all -inf has no mass: out 0, lse -inf. NaN or +inf in z makes the
///           query's out and lse NaN. A weight of 0 still multiplies its v.
/// Numerics  the row's maximum is subtracted; f32 sums for f32 and bf16, where p is rounded to bf16
///           before it multiplies v on CUDA. Same bits for any thread count, grid and batch: a
///           sequence's result depends on its own rows.
/// Cost      4 L^2 D operations a head and sequence of L rows (causal: half). CPU: 64 L floats and
///           a copy of the sequence's head a thread.
/// longest   at least the rows of the longest sequence, or 0 if the caller does not know: chooses how
///           CUDA cuts the work, which is right but slower where the hint is wrong.
/// Dropout   drop.p, seed, path, step, sample: as in dropout.h, but that a sequence's sample is that
///           of its first row (null: s), and its rows count their own position. p = 0: none.
/// Errors    Error if a size is negative, a pitch too small, a needed pointer null, or p outside
///           [0, 1). CPU: Error naming the sequence if starts descends or leaves [0, N], or is longer
///           than kAttentionDropoutKeys with dropout. CUDA: starts is cut to that range; f32 and bf16
///           with D of 8, 16, 32, 64 or 128 only (attention_on_cuda).
/// Source    Vaswani et al. 2017, arXiv:1706.03762; Dao et al. 2022, arXiv:2205.14135 (lse form).
struct AttentionArgs {
  void* out;
  void* lse;
  const void *q, *k, *v;
  const std::int32_t* starts;
  std::int64_t sequences, rows, heads, head_size;
  std::int64_t out_pitch, q_pitch, k_pitch, v_pitch;
  std::int64_t longest = 0;
  bool causal = false;
  DType dtype = DType::kF32;
  DropoutArgs drop{};
};

void attention_cpu(const Context& context, const AttentionArgs& args);
extern CudaOp<AttentionArgs> attention_cuda;

/// Gradients of the above; p is computed again from q, k and lse.
///
///   delta_i = dout_i . out_i        dp_ij = m_ij dout_i . v_j       dz_ij = p_ij (dp_ij - delta_i)
///   dq_i = sum_j dz_ij k_j / sqrt(D)   dk_j = sum_i dz_ij q_i / sqrt(D)   dv_j = sum_i m_ij p_ij dout_i
///
/// Shapes    as above; out, lse are the forward's. dq, dk, dv overlap no input; rows of no sequence
///           get 0. No atomics: every sum has its fixed order.
/// Cost      10 L^2 D operations on the CPU, 14 L^2 D on CUDA, where q k^T and dout v^T are computed
///           once for dq and once for dk and dv.
struct AttentionBackwardArgs {
  void *dq, *dk, *dv;
  const void *dout, *out;
  const void* lse;
  const void *q, *k, *v;
  const std::int32_t* starts;
  std::int64_t sequences, rows, heads, head_size;
  std::int64_t dq_pitch, dk_pitch, dv_pitch, dout_pitch, out_pitch, q_pitch, k_pitch, v_pitch;
  std::int64_t longest = 0;
  bool causal = false;
  DType dtype = DType::kF32;
  DropoutArgs drop{};
};

void attention_backward_cpu(const Context& context, const AttentionBackwardArgs& args);
extern CudaOp<AttentionBackwardArgs> attention_backward_cuda;

/// True for what the CUDA kernels take; the rest is the composed path's.
constexpr bool attention_on_cuda(DType dtype, std::int64_t head_size) {
  return (dtype == DType::kF32 || dtype == DType::kBF16) &&
         (head_size == 8 || head_size == 16 || head_size == 32 || head_size == 64 ||
          head_size == 128);
}

template <class Args>
void check_attention(const char* op, const Args& a) {
  RETORT_CHECK(a.sequences >= 0 && a.rows >= 0 && a.heads >= 1 && a.head_size >= 1 &&
                   a.rows < std::int64_t{1} << 31,
               "[", op,
               "] expected sequences, rows >= 0, heads, head size >= 1 and fewer than 2^31",
               " rows, got ", a.sequences, ", ", a.rows, ", ", a.heads, ", ", a.head_size);
  RETORT_CHECK(a.starts, "[", op, "] expected non-null starts");
  RETORT_CHECK(a.longest >= 0, "[", op, "] expected longest >= 0, got ", a.longest);
  RETORT_CHECK(a.drop.p >= 0 && a.drop.p < 1, "[", op, "] expected p in [0, 1), got ", a.drop.p);
}

inline void attention(const Context& context, const AttentionArgs& a) {
  check_attention("attention", a);
  if (a.rows == 0) return;
  const std::int64_t least = a.heads * a.head_size;
  RETORT_CHECK(a.rows == 1 || (a.out_pitch >= least && a.q_pitch >= least && a.k_pitch >= least &&
                               a.v_pitch >= least),
               "[attention] expected pitches >= ", least, ", got ", a.out_pitch, ", ", a.q_pitch,
               ", ", a.k_pitch, ", ", a.v_pitch);
  RETORT_CHECK(a.out && a.q && a.k && a.v, "[attention] expected non-null q, k, v and out");
  dispatch("attention", context, a, attention_cpu, attention_cuda);
}

inline void attention_backward(const Context& context, const AttentionBackwardArgs& a) {
  check_attention("attention_backward", a);
  if (a.rows == 0) return;
  const std::int64_t least = a.heads * a.head_size;
  RETORT_CHECK(a.rows == 1 || (a.dq_pitch >= least && a.dk_pitch >= least && a.dv_pitch >= least &&
                               a.dout_pitch >= least && a.out_pitch >= least &&
                               a.q_pitch >= least && a.k_pitch >= least && a.v_pitch >= least),
               "[attention_backward] expected pitches >= ", least);
  RETORT_CHECK(a.dq && a.dk && a.dv && a.dout && a.out && a.lse && a.q && a.k && a.v,
               "[attention_backward] expected non-null pointers");
  dispatch("attention_backward", context, a, attention_backward_cpu, attention_backward_cuda);
}

/// The counter word of sequence s's sample; `begin` is its first row.
RETORT_HD std::uint32_t attention_sample(const DropoutArgs& drop, std::int64_t s,
                                         std::int64_t begin) {
  return dropout_sample(drop, drop.sample == nullptr ? s : begin);
}
/// The key of a head's masks.
RETORT_HD DropoutKey attention_key(const DropoutArgs& drop, int head) {
  DropoutKey key = dropout_key(drop);
  key.path = attention_path(key.path, head);
  return key;
}

}  // namespace retort::kernels
