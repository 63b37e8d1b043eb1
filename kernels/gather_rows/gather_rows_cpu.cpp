#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "kernels/common/parallel.h"
#include "kernels/gather_rows/gather_rows.h"

namespace retort::kernels {

CudaOp<GatherRowsArgs> gather_rows_cuda = nullptr;
CudaOp<ScatterRowsArgs> scatter_rows_cuda = nullptr;

namespace {

void check_indices(const char* op, const std::int32_t* indices, std::int64_t rows,
                   std::int64_t table_rows) {
  for (std::int64_t n = 0; n < rows; ++n)
    RETORT_CHECK(indices[n] >= 0 && indices[n] < table_rows, "[", op, "] expected indices in [0, ",
                 table_rows, "), got ", indices[n], " in row ", n);
}

// The rows in the order of their indices, rows of one index ascending: eight bits at a time, each
// pass keeps the order of the one before. `spare` is as large as `order`.
void sort_rows(const ScatterRowsArgs& a, std::int32_t* order, std::int32_t* spare) {
  const std::size_t rows = static_cast<std::size_t>(a.rows);
  for (std::size_t n = 0; n < rows; ++n) order[n] = static_cast<std::int32_t>(n);
  const int passes = scatter_passes(a.table_rows);
  for (int pass = 0; pass < passes; ++pass) {
    const auto digit = [&](std::int32_t row) {
      return static_cast<std::size_t>(static_cast<std::uint32_t>(a.indices[row]) >> (8 * pass) &
                                      255u);
    };
    std::array<std::int32_t, 257> next{};
    for (std::size_t n = 0; n < rows; ++n) ++next[digit(order[n]) + 1];
    for (std::size_t d = 0; d < 256; ++d) next[d + 1] += next[d];
    for (std::size_t n = 0; n < rows; ++n)
      spare[static_cast<std::size_t>(next[digit(order[n])]++)] = order[n];
    std::swap(order, spare);
  }
  // The result is in what is now `order`: of an odd number of passes, the caller's spare.
  if (passes % 2 != 0) std::memcpy(spare, order, rows * sizeof(std::int32_t));
}

template <class A, class T>
void add_row(A* sum, const T* x, std::int64_t columns) {
  for (std::int64_t c = 0; c < columns; ++c) sum[c] += to_float(x[c]);
}
template <class A, class T>
void add_sum(T* table, const A* sum, std::int64_t columns) {
  for (std::int64_t c = 0; c < columns; ++c) table[c] = from_float<T>(to_float(table[c]) + sum[c]);
}

// The positions of a tile of the sorted rows, and what a tile needs to know of its neighbours.
struct Order {
  const std::int32_t* rows;
  const std::int32_t* indices;
  std::int64_t n;
  std::int32_t index(std::int64_t k) const { return indices[rows[k]]; }
  bool same(std::int64_t k, std::int64_t l) const {
    return k >= 0 && l < n && index(k) == index(l);
  }
};

template <class T>
void scatter(const Context& context, const ScatterRowsArgs& a) {
  using A = accumulator_t<T>;
  T* const table = static_cast<T*>(a.table);
  const T* const x = static_cast<const T*>(a.x);
  const std::int64_t columns = a.columns, tiles = (a.rows + kScatterTile - 1) / kScatterTile;
  // Two sums a tile: of the run of one index that began before it, and of the one that goes on
  // behind it.
  const std::size_t sums = static_cast<std::size_t>(2 * tiles * columns) * sizeof(A);
  A* const open = static_cast<A*>(
      context.scratch->get(sums + 2 * static_cast<std::size_t>(a.rows) * sizeof(std::int32_t)));
  std::int32_t* const order = reinterpret_cast<std::int32_t*>(reinterpret_cast<char*>(open) + sums);
  sort_rows(a, order, order + a.rows);
  const Order by_index{order, a.indices, a.rows};
  const std::int64_t grain =
      std::max<std::int64_t>(1, (std::int64_t{1} << 15) / (kScatterTile * columns));
  parallel_for(tiles, grain, [=](std::int64_t first, std::int64_t last) {
    std::vector<A> sum(static_cast<std::size_t>(columns));
    for (std::int64_t t = first; t < last; ++t) {
      const std::int64_t end = std::min(a.rows, (t + 1) * kScatterTile);
      std::int64_t begin = t * kScatterTile;
      while (begin < end) {
        std::fill(sum.begin(), sum.end(), A(0));
        std::int64_t k = begin;
        for (; k < end && by_index.index(k) == by_index.index(begin); ++k)
          add_row(sum.data(), x + std::int64_t{order[k]} * a.x_pitch, columns);
        if (begin == t * kScatterTile && by_index.same(begin - 1, begin))
          std::copy(sum.begin(), sum.end(), open + 2 * t * columns);
        else if (by_index.same(k - 1, k))
          std::copy(sum.begin(), sum.end(), open + (2 * t + 1) * columns);
        else
          add_sum(table + std::int64_t{by_index.index(begin)} * a.table_pitch, sum.data(), columns);
        begin = k;
      }
    }
  });
  // Runs over several tiles: whoever holds the beginning adds up the rest.
  parallel_for(tiles, grain, [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t) {
      const std::int64_t begin = t * kScatterTile, end = begin + kScatterTile;
      if (!by_index.same(end - 1, end)) continue;
      if (by_index.same(begin - 1, end)) continue;  // began before this tile
      A* const total = open + (2 * t + 1) * columns;
      for (std::int64_t u = t + 1; by_index.same(end, u * kScatterTile); ++u)
        add_row(total, open + 2 * u * columns, columns);
      add_sum(table + std::int64_t{by_index.index(end)} * a.table_pitch, total, columns);
    }
  });
}

}  // namespace

void gather_rows_cpu(const Context&, const GatherRowsArgs& a) {
  check_indices("gather_rows", a.indices, a.rows, a.table_rows);
  if (a.invalid_row) *a.invalid_row = 0;
  if (a.rows == 0 || a.columns == 0) return;
  const auto size = static_cast<std::int64_t>(size_of(a.dtype));
  const std::int64_t bytes = a.columns * size;
  parallel_for(a.rows, std::max<std::int64_t>(1, (std::int64_t{1} << 17) / bytes),
               [=](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t n = begin; n < end; ++n)
                   std::memcpy(
                       static_cast<char*>(a.y) + n * a.y_pitch * size,
                       static_cast<const char*>(a.table) + a.indices[n] * a.table_pitch * size,
                       static_cast<std::size_t>(bytes));
               });
}

void scatter_rows_cpu(const Context& context, const ScatterRowsArgs& a) {
  check_indices("scatter_rows", a.indices, a.rows, a.table_rows);
  dispatch_float(a.dtype, "scatter_rows", [&]<class T>() { scatter<T>(context, a); });
}

}  // namespace retort::kernels
