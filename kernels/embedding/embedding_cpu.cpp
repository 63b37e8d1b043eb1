#include <algorithm>
#include <cstring>

#include "kernels/common/parallel.h"
#include "kernels/embedding/embedding.h"

namespace retort::kernels {

CudaOp<EmbeddingArgs> embedding_cuda = nullptr;

namespace {

/// Calls f(n, row) for rows [begin, end), walking over the sequences.
template <class F>
void for_each_row(const EmbeddingArgs& a, std::int64_t begin, std::int64_t end, const F& f) {
  std::int64_t sequence = embedding_sequence(a, begin);
  for (std::int64_t n = begin; n < end; ++n) {
    while (a.starts && sequence < a.sequences && a.starts[sequence + 1] <= n) ++sequence;
    f(n, embedding_row(a, n, sequence), sequence);
  }
}

void check(const EmbeddingArgs& a) {
  for (std::int64_t s = 0; a.starts && s <= a.sequences; ++s)
    RETORT_CHECK(a.starts[s] >= (s == 0 ? 0 : a.starts[s - 1]) && a.starts[s] <= a.rows,
                 "[embedding] expected starts ascending from 0 to ", a.rows, ", got ", a.starts[s],
                 " for sequence ", s);
  for_each_row(a, 0, a.rows, [&](std::int64_t n, const EmbeddingRow& row, std::int64_t sequence) {
    if (row.word != kEmbeddingInvalid) return;
    RETORT_CHECK(a.ids[n] >= 0 && a.ids[n] < a.words, "[embedding] expected ids in [0, ", a.words,
                 "), got ", a.ids[n], " in row ", n);
    const std::int64_t position = n - (a.starts ? a.starts[sequence] : 0) + a.position_offset;
    RETORT_CHECK(!a.position || position < a.positions, "[embedding] expected positions in [0, ",
                 a.positions, "), got ", position, " in row ", n, " of sequence ", sequence);
    fail(ErrorCode::kUsage, "[embedding] expected segments in [0, ", a.types, "), got ",
         a.segments ? a.segments[n] : 0, " in row ", n);
  });
}

template <class T>
void look_up(const EmbeddingArgs& a) {
  const T* const word = static_cast<const T*>(a.word);
  const T* const position = static_cast<const T*>(a.position);
  const T* const type = static_cast<const T*>(a.type);
  const std::int64_t columns = a.columns;
  const auto grain = std::max<std::int64_t>(1, (std::int64_t{1} << 15) / (columns + 16));
  parallel_for(a.rows, grain, [&](std::int64_t begin, std::int64_t end) {
    for_each_row(a, begin, end, [&](std::int64_t n, const EmbeddingRow& row, std::int64_t) {
      T* const y = static_cast<T*>(a.y) + n * columns;
      if (a.indices) {
        a.indices[n] = row.word;
        a.indices[a.rows + n] = row.position;
        a.indices[2 * a.rows + n] = row.type;
      }
      if (columns == 0) return;
      if (row.word < 0) {
        std::fill(y, y + columns, T{});
        return;
      }
      const T* const w = word + row.word * a.word_pitch;
      const T* const p = position ? position + row.position * a.position_pitch : nullptr;
      const T* const t = type ? type + row.type * a.type_pitch : nullptr;
      if (p && t) {
        for (std::int64_t c = 0; c < columns; ++c)
          y[c] = from_float<T>(to_float(w[c]) + to_float(p[c]) + to_float(t[c]));
      } else if (p || t) {
        const T* const other = p ? p : t;
        for (std::int64_t c = 0; c < columns; ++c)
          y[c] = from_float<T>(to_float(w[c]) + to_float(other[c]));
      } else {
        std::memcpy(y, w, static_cast<std::size_t>(columns) * sizeof(T));
      }
    });
  });
}

}  // namespace

void embedding_cpu(const Context&, const EmbeddingArgs& a) {
  check(a);
  dispatch_float(a.dtype, "embedding", [&]<class T>() { look_up<T>(a); });
  if (a.invalid_row) *a.invalid_row = 0;
}

}  // namespace retort::kernels
