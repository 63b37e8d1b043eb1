// The input layer of a language model: words, positions and token types, looked up and added up.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"
#include "kernels/common/hd.h"

namespace retort::kernels {

/// y[n] = word[ids[n]] + position[n - starts[b] + position_offset] + type[segments[n]], where b is
/// the sequence that holds row n: starts[b] <= n < starts[b + 1].
///
/// Shapes    word (words, C), position (positions, C), type (types, C), rows `*_pitch` elements
///           apart; y (N, C) = (rows, columns), contiguous; all of `dtype` (f64, f32, bf16). ids,
///           segments (N); starts (sequences + 1), ascending, 0 to N. indices (3, N): the rows of
///           word, position and type that went into y[n], what scatter_rows needs to add its
///           gradient back; all three kEmbeddingOutside, or kEmbeddingInvalid, where there are none.
///           Null: position, type (nothing is added); starts (one sequence of all rows); segments
///           (0 everywhere); indices, invalid_row.
/// Masking   rows of no sequence (padding of a captured batch) are not looked up: y is 0.
/// Numerics  (word + position) + type in the accumulation type, rounded once.
/// Cost      reads up to 3 N C elements (positions and types come from caches), writes N C. On CUDA
///           scratch 12 bytes a row where invalid_row is given without indices.
/// Errors    Error if a size is negative or has 2^31 and more, a pitch is too small or a pointer
///           null. An id, position or segment outside its table: on the CPU Error naming row and
///           index, nothing is written (likewise if starts descends or leaves [0, N]); on CUDA that
///           row of y is filled with one-bits (NaN), and invalid_row is 1 + the first such row
///           (0: none).
/// Source    Devlin et al. 2019, arXiv:1810.04805, section 3 and figure 2. position_offset: RoBERTa
///           counts from 2.
struct EmbeddingArgs {
  void* y;
  const void *word, *position, *type;
  const std::int32_t *ids, *starts, *segments;
  std::int64_t rows, columns, sequences;
  std::int64_t words, positions, types;
  std::int64_t word_pitch, position_pitch, type_pitch;
  std::int64_t position_offset = 0;
  DType dtype = DType::kF32;
  std::int32_t* indices = nullptr;
  std::int32_t* invalid_row = nullptr;
};

inline constexpr std::int32_t kEmbeddingOutside = -1, kEmbeddingInvalid = -2;

void embedding_cpu(const Context& context, const EmbeddingArgs& args);
extern CudaOp<EmbeddingArgs> embedding_cuda;

inline void embedding(const Context& context, const EmbeddingArgs& a) {
  constexpr std::int64_t kMost = std::int64_t{1} << 31;
  const auto fits = [](std::int64_t n) { return n >= 0 && n < kMost - 1; };
  RETORT_CHECK(fits(a.rows) && fits(a.columns) && fits(a.sequences) && fits(a.words) &&
                   fits(a.positions) && fits(a.types) && fits(a.position_offset),
               "[embedding] expected sizes in [0, 2^31 - 1), got ", a.rows, " rows, ", a.columns,
               " columns, ", a.sequences, " sequences, tables of ", a.words, ", ", a.positions,
               ", ", a.types, " and an offset of ", a.position_offset);
  RETORT_CHECK((a.words <= 1 || a.word_pitch >= a.columns) &&
                   (!a.position || a.positions <= 1 || a.position_pitch >= a.columns) &&
                   (!a.type || a.types <= 1 || a.type_pitch >= a.columns),
               "[embedding] expected pitches of at least ", a.columns, ", got ", a.word_pitch, ", ",
               a.position_pitch, ", ", a.type_pitch);
  RETORT_CHECK(a.rows == 0 || (a.ids && (a.columns == 0 || a.words == 0 || (a.y && a.word))),
               "[embedding] expected non-null y, word and ids");
  dispatch("embedding", context, a, embedding_cpu, embedding_cuda);
}

/// The rows of the tables that row n is made of.
struct EmbeddingRow {
  std::int32_t word, position, type;
};

/// Row n: `sequence` is how many of starts[1 .. sequences] are <= n (with starts).
RETORT_HD EmbeddingRow embedding_row(const EmbeddingArgs& a, std::int64_t n,
                                     std::int64_t sequence) {
  constexpr EmbeddingRow kOutside{kEmbeddingOutside, kEmbeddingOutside, kEmbeddingOutside},
      kInvalid{kEmbeddingInvalid, kEmbeddingInvalid, kEmbeddingInvalid};
  std::int64_t first = 0;
  if (a.starts) {
    if (sequence >= a.sequences || n < a.starts[sequence]) return kOutside;
    first = a.starts[sequence];
  }
  const std::int64_t id = a.ids[n], position = a.position ? n - first + a.position_offset : 0,
                     type = a.type && a.segments ? a.segments[n] : 0;
  if (id < 0 || id >= a.words || (a.position && (position < 0 || position >= a.positions)) ||
      (a.type && (type < 0 || type >= a.types)))
    return kInvalid;
  return {static_cast<std::int32_t>(id), static_cast<std::int32_t>(position),
          static_cast<std::int32_t>(type)};
}

/// How many of starts[1 .. sequences] are <= n, by halves.
RETORT_HD std::int64_t embedding_sequence(const EmbeddingArgs& a, std::int64_t n) {
  if (!a.starts) return 0;
  std::int64_t low = 0, high = a.sequences;  // of starts[1 + i]: true below low, false from high on
  while (low < high) {
    const std::int64_t middle = low + (high - low) / 2;
    if (a.starts[middle + 1] <= n)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

}  // namespace retort::kernels
