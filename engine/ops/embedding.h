// The input layer of a language model: words, positions and token types in one pass.
#pragma once
#include "engine/tensor/tensor.h"

namespace retort {

/// What embedding() reads. Undefined tensors mean what their comment says.
struct EmbeddingArgs {
  Tensor word;           // (words, C)
  Tensor position;       // (positions, C). Undefined: none is added
  Tensor type;           // (types, C). Undefined: none is added
  Tensor ids;            // i32 (N): all sequences, end to end and unpadded
  Tensor starts;         // i32 (B + 1): sequence b is rows [starts[b], starts[b+1]). Undefined: one
  Tensor segments;       // i32 (N). Undefined: 0 everywhere
  Tensor invalid_row{};  // i32 scalar, written: 1 + the first row outside a table, 0 if none
  std::int64_t position_offset = 0;  // what a sequence's first row has
};

/// y[n] = word[ids[n]] + position[n - starts[b] + position_offset] + type[segments[n]] of the
/// sequence b that holds n; 0 for rows of no sequence.
///
///   dword[i] += sum over n with ids[n] = i of dy[n], in fixed order (scatter_rows); likewise
///   dposition and dtype
///
/// Backward adds those rows to the tables' gradients where they lie (gradient_to_add_to): no
/// temporary of a table's size, and a decoder tied to the words may add its own before or after.
///
/// Shapes    rows of the tables may be pitched -> (N, C).
/// Numerics  f64, f32, bf16: (word + position) + type, rounded once.
/// Saved     the row of each table: 12 bytes a row of y.
/// Errors    Error if shapes, dtypes or devices do not fit. An id, position or segment outside its
///           table: on the CPU Error naming row and index; on CUDA that row is NaN and named by
///           invalid_row, and has no gradient.
/// Source    Devlin et al. 2019, arXiv:1810.04805, figure 2.
Tensor embedding(const EmbeddingArgs& args);

/// Its definition in ordinary ops: three gathers, added up. Every row belongs to a sequence.
Tensor embedding_composed(const EmbeddingArgs& args);

}  // namespace retort
