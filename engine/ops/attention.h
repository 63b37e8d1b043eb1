// Differentiable softmax attention over sequences that lie end to end.
#pragma once
#include "engine/ops/random.h"
#include "engine/tensor/tensor.h"

namespace retort {

struct AttentionOptions {
  bool causal = false;       // a row sees itself and the rows before it
  std::int64_t longest = 0;  // no sequence has more rows; 0: not known. Affects speed alone
  double dropout = 0;        // share of the probabilities that are dropped, in [0, 1)
  Noise noise = {};          // with dropout: seed, step, sample (N) as for the rows of dropout.h
  std::uint32_t path = 0;    // path_hash("layer1.attention") or the like
};

/// softmax(q k^T / sqrt(D)) v for each head, within each sequence: formulas, with those of the
/// gradients, in kernels/attention/attention.h.
///
/// The probabilities' dropout is a function of (noise.seed, step, sample, path), head, and the two
/// rows' places in their sequence: the same in any batch, order and split, on any device. A
/// sequence's sample is that of its first row (undefined: the sequence's number); noise.position is
/// not read.
///
/// Shapes    q, k, v (N, heads D), rows may be pitched (columns of a packed product are read where
///           they lie); starts (S + 1), i32, ascending, on the same device: sequence s is rows
///           starts[s] to starts[s + 1]. -> (N, heads D). Rows of no sequence give 0 and take no
///           gradient.
/// Numerics  f64 (CPU alone), f32, bf16 (summed in f32).
/// Saved     q, k, v, the result, and lse, one number a row and head: no (L, L) array.
/// Provider  the kernels take every head size on the CPU, and on CUDA those that
///           attention_is_fused names. Others run attention_composed there: slower, (L, L) arrays, and
///           it reads starts back, so a captured step refuses it.
/// Capture   starts, step and sample are read on the device, in backward as in forward.
/// Errors    Error if shapes, dtypes or devices do not fit; on the CPU also if starts descends or
///           leaves [0, N], or a sequence is longer than options.longest.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& starts,
                 std::int64_t heads, const AttentionOptions& options = {});

/// The same of one tensor that holds q, k and v side by side: qkv (N, 3 heads D). Its gradient is
/// written in one piece.
Tensor attention(const Tensor& qkv, const Tensor& starts, std::int64_t heads,
                 const AttentionOptions& options = {});

/// True where a kernel takes such heads: what else there is runs by the composed path.
bool attention_is_fused(Device device, DType dtype, std::int64_t head_size);

/// The definition in ordinary ops: products and softmax, sequence by sequence and head by head.
Tensor attention_composed(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& starts,
                          std::int64_t heads, const AttentionOptions& options = {});

}  // namespace retort
