// CUDA kernels of gather_rows and scatter_rows and their launch configuration.
//
// Note [Scattering in a fixed order]
//   Rows of one index must be added up, and atomics would add them in any order. So the rows are
//   sorted by index (eight bits a pass, each pass keeps the order of the one before), and the
//   sorted rows are added up in tiles of kScatterTile, however long the runs of one index are: a
//   table of two rows is no slower than one of 30,000. A run inside a tile goes to the table at
//   once; of a run over several tiles each leaves its part, and the tile that holds the beginning
//   adds them up.
#pragma once
#include <utility>

#include "kernels/gather_rows/gather_rows.h"
#include "kernels/simt/pack.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

inline constexpr int kScatterThreads = 256, kScatterDigits = 256, kScatterRounds = 4;
inline constexpr int kScatterKeys = kScatterThreads * kScatterRounds;  // a block's

/// The index as a key to sort by: R where it is outside [0, R).
SIMT_D std::uint32_t scatter_key(const std::int32_t* indices, std::int64_t row,
                                 std::int64_t table_rows) {
  const std::int32_t i = indices[row];
  return static_cast<std::uint32_t>(i >= 0 && i < table_rows ? i : table_rows);
}

// One thread per word of a row; threadIdx.x and blockIdx.x go over words, y over rows.
// Shared: none. Launch: any grid; W divides pointers, pitches and the row.
template <class W>
__global__ void __launch_bounds__(256)
    gather_rows_thread_per_word_kernel(W* y, const W* table, const std::int32_t* indices,
                                       std::int64_t rows, std::int64_t words,
                                       std::int64_t table_rows, std::int64_t y_pitch,
                                       std::int64_t table_pitch) {
  for (std::int64_t n = std::int64_t{blockIdx.y} * blockDim.y + threadIdx.y; n < rows;
       n += std::int64_t{gridDim.y} * blockDim.y) {
    const std::int32_t index = indices[n];
    const bool valid = index >= 0 && index < table_rows;
#pragma unroll 1
    for (std::int64_t c = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; c < words;
         c += std::int64_t{gridDim.x} * blockDim.x) {
      W word;
      __builtin_memset(&word, 0xff, sizeof word);
      if (valid) word = table[index * table_pitch + c];
      y[n * y_pitch + c] = word;
    }
  }
}

// *invalid_row = 1 + the first row whose index is outside, or 0. One block of 1024.
// Shared: an int a warp.
static __global__ void __launch_bounds__(1024)
    gather_rows_first_invalid_one_block_kernel(std::int32_t* invalid_row,
                                               const std::int32_t* indices, std::int64_t rows,
                                               std::int64_t table_rows) {
  SIMT_SHARED(int, firsts, [32]);
  int first = 0x7fffffff;
  for (std::int64_t n = threadIdx.x; n < rows && first == 0x7fffffff; n += blockDim.x)
    if (indices[n] < 0 || indices[n] >= table_rows) first = static_cast<int>(n);
  first = __reduce_min_sync(~0u, first);
  if (threadIdx.x % 32 == 0) firsts[threadIdx.x / 32] = first;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < 32; ++w) first = min(first, firsts[w]);
  *invalid_row = first == 0x7fffffff ? 0 : first + 1;
}

// counts[digit, block] = how many of a block's 1024 keys have the digit. order null: as they come.
// Shared: 256 ints. Launch: grid ceil(rows / 1024), block 256.
static __global__ void __launch_bounds__(kScatterThreads)
    scatter_rows_count_kernel(std::int32_t* counts, const std::int32_t* order,
                              const std::int32_t* indices, std::int64_t rows,
                              std::int64_t table_rows, int shift) {
  SIMT_SHARED(std::int32_t, s_count, [kScatterDigits]);
  s_count[threadIdx.x] = 0;
  __syncthreads();
  for (int round = 0; round < kScatterRounds; ++round) {
    const std::int64_t k =
        std::int64_t{blockIdx.x} * kScatterKeys + round * kScatterThreads + threadIdx.x;
    if (k < rows)
      atomicAdd(&s_count[scatter_key(indices, order ? order[k] : k, table_rows) >> shift & 255u],
                1);
  }
  __syncthreads();
  counts[std::int64_t{threadIdx.x} * gridDim.x + blockIdx.x] = s_count[threadIdx.x];
}

// counts[i] := the sum of all before i. One block of 1024; a thread takes neighbours.
// Shared: 1024 ints.
static __global__ void __launch_bounds__(1024)
    scatter_rows_scan_one_block_kernel(std::int32_t* counts, std::int64_t n) {
  SIMT_SHARED(std::int32_t, s_sum, [1024]);
  const std::int64_t each = (n + 1023) / 1024, begin = each * threadIdx.x,
                     end = begin + each < n ? begin + each : n;
  std::int32_t mine = 0;
  for (std::int64_t i = begin; i < end; ++i) mine += counts[i];
  s_sum[threadIdx.x] = mine;
  for (unsigned d = 1; d < 1024; d *= 2) {
    __syncthreads();
    const std::int32_t before = threadIdx.x >= d ? s_sum[threadIdx.x - d] : 0;
    __syncthreads();
    s_sum[threadIdx.x] += before;
  }
  std::int32_t at = s_sum[threadIdx.x] - mine;
  for (std::int64_t i = begin; i < end; ++i) {
    const std::int32_t count = counts[i];
    counts[i] = at;
    at += count;
  }
}

// Moves each key's row to its place among the digits. Warps take turns, so that rows of one digit
// keep their order.
// Shared: 256 ints. Launch: as scatter_rows_count_kernel.
static __global__ void __launch_bounds__(kScatterThreads)
    scatter_rows_place_kernel(std::int32_t* to, const std::int32_t* order,
                              const std::int32_t* indices, const std::int32_t* places,
                              std::int64_t rows, std::int64_t table_rows, int shift) {
  SIMT_SHARED(std::int32_t, s_next, [kScatterDigits]);
  s_next[threadIdx.x] = places[std::int64_t{threadIdx.x} * gridDim.x + blockIdx.x];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  __syncthreads();
  for (int round = 0; round < kScatterRounds; ++round) {
    const std::int64_t k =
        std::int64_t{blockIdx.x} * kScatterKeys + round * kScatterThreads + threadIdx.x;
    const bool exists = k < rows;
    const std::int32_t row = !exists ? 0 : order ? order[k] : static_cast<std::int32_t>(k);
    const unsigned digit =  // 256: of no key
        exists ? scatter_key(indices, row, table_rows) >> shift & 255u : 256u;
    const unsigned equals = __match_any_sync(~0u, digit);
    const int rank = __popc(equals & ((1u << lane) - 1u));
    for (int turn = 0; turn < kScatterThreads / 32; ++turn) {
      if (turn == warp) {
        if (exists) to[s_next[digit] + rank] = row;
        __syncwarp();
        if (exists && rank == 0) s_next[digit] += __popc(equals);
      }
      __syncthreads();
    }
  }
}

template <class T>
struct ScatterParams {
  T* table;
  const T* x;
  const std::int32_t *indices, *order;
  accumulator_t<T>* open;  // (tiles, 2, columns): see below
  std::int64_t rows, columns, table_rows, table_pitch, x_pitch;
  SIMT_D std::uint32_t key(std::int64_t k) const {
    return scatter_key(indices, order[k], table_rows);
  }
};

template <class T, int kWidth>
SIMT_D void add_to_table(const ScatterParams<T>& p, std::uint32_t key, std::int64_t c,
                         const accumulator_t<T> (&sum)[kWidth]) {
  if (key >= static_cast<std::uint64_t>(p.table_rows)) return;  // an index outside
  T* const at = p.table + std::int64_t{key} * p.table_pitch + c;
  auto old = load_pack<kWidth>(at);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) old.v[i] = from_float<T>(to_float(old.v[i]) + sum[i]);
  store_pack(at, old);
}

// Block (x, y): columns times a tile of 32 sorted rows; a thread owns kWidth columns. open[tile,
// 0]: the run of one index that began before the tile; open[tile, 1]: that which goes on behind it.
// Shared: 34 keys and 32 rows. Launch: grid (ceil(columns / (128 kWidth)), tiles in y and z),
// block 128.
template <class T, int kWidth>
__global__ void __launch_bounds__(128) scatter_rows_block_per_tile_kernel(ScatterParams<T> p) {
  using A = accumulator_t<T>;
  constexpr int kTile = static_cast<int>(kScatterTile);
  SIMT_SHARED(std::uint32_t, s_key, [kTile + 2]);  // from the one before the tile on
  SIMT_SHARED(std::int32_t, s_row, [kTile]);
  const std::int64_t tile = std::int64_t{blockIdx.z} * gridDim.y + blockIdx.y, begin = tile * kTile;
  if (begin >= p.rows) return;
  const int count = static_cast<int>(p.rows - begin < kTile ? p.rows - begin : kTile);
  constexpr std::uint32_t kNone = 0xffffffffu;  // no key: those are below 2^31
  if (threadIdx.x < kTile + 2) {
    const std::int64_t k = begin + threadIdx.x - 1;
    s_key[threadIdx.x] = k >= 0 && k < p.rows ? p.key(k) : kNone;
    if (threadIdx.x >= 1 && threadIdx.x <= kTile)
      s_row[threadIdx.x - 1] = k < p.rows ? p.order[k] : 0;
  }
  __syncthreads();
  const std::int64_t c = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * kWidth;
  if (c >= p.columns) return;
  A sum[kWidth] = {};
  int first = 0;  // of the run
  for (int k = 0; k < count; ++k) {
    const auto in = load_pack<kWidth>(p.x + std::int64_t{s_row[k]} * p.x_pitch + c);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sum[i] += A(to_float(in.v[i]));
    const std::uint32_t key = s_key[k + 1];
    if (k + 1 < count && s_key[k + 2] == key) continue;
    const bool began_before = first == 0 && s_key[0] == key,
               goes_on = k + 1 == count && s_key[k + 2] == key;
    if (began_before || goes_on) {
      A* const out = p.open + (2 * tile + !began_before) * p.columns + c;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) out[i] = sum[i];
    } else {
      add_to_table<T, kWidth>(p, key, c, sum);
    }
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sum[i] = A(0);
    first = k + 1;
  }
}

// The same grid: the tile in which a run over several tiles begins adds up its parts.
// Shared: none.
template <class T, int kWidth>
__global__ void __launch_bounds__(128) scatter_rows_join_tiles_kernel(ScatterParams<T> p) {
  using A = accumulator_t<T>;
  constexpr std::int64_t kTile = kScatterTile;
  const std::int64_t tile = std::int64_t{blockIdx.z} * gridDim.y + blockIdx.y, begin = tile * kTile,
                     end = begin + kTile;
  const std::int64_t c = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * kWidth;
  if (end >= p.rows || c >= p.columns) return;
  const std::uint32_t key = p.key(end);
  if (p.key(end - 1) != key || (begin > 0 && p.key(begin - 1) == key)) return;
  std::int64_t inside = end, outside = p.rows;  // the first row with another key, by halves
  while (outside - inside > 1) {
    const std::int64_t middle = inside + (outside - inside) / 2;
    (p.key(middle) == key ? inside : outside) = middle;
  }
  const std::int64_t last = inside / kTile;
  A sum[kWidth];
#pragma unroll
  for (int i = 0; i < kWidth; ++i) sum[i] = p.open[(2 * tile + 1) * p.columns + c + i];
#pragma unroll 4
  for (std::int64_t t = tile + 1; t <= last; ++t)
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sum[i] += p.open[2 * t * p.columns + c + i];
  add_to_table<T, kWidth>(p, key, c, sum);
}

}  // namespace SIMT_NS

inline void gather_rows_launch(const Context& context, const GatherRowsArgs& a) {
  using namespace SIMT_NS;
  const auto stream = static_cast<cudaStream_t>(context.stream);
  if (a.invalid_row)
    simt::launch({"gather_rows", 1, 1024, 0, stream}, gather_rows_first_invalid_one_block_kernel,
                 a.invalid_row, a.indices, a.rows, a.table_rows);
  if (a.rows == 0 || a.columns == 0) return;
  const auto size = static_cast<std::int64_t>(size_of(a.dtype));
  // What the widest word must divide. Pitches count only where there is a second row.
  const std::int64_t bytes = a.columns * size, y_bytes = a.rows > 1 ? a.y_pitch * size : bytes,
                     table_bytes = a.table_rows > 1 ? a.table_pitch * size : bytes;
  const auto all = static_cast<std::uint64_t>(bytes | y_bytes | table_bytes) |
                   reinterpret_cast<std::uintptr_t>(a.y) |
                   reinterpret_cast<std::uintptr_t>(a.table);
  const auto run = [&]<class W>() {
    constexpr std::int64_t kSize = sizeof(W);
    const std::int64_t words = bytes / kSize;
    int across = 256;  // short rows share a block
    while (across > 1 && across / 2 >= words) across /= 2;
    const int down = 256 / across;
    const std::int64_t row_blocks = (a.rows + down - 1) / down;
    simt::launch({"gather_rows",
                  dim3(blocks_for(words, 1, across),
                       static_cast<unsigned>(row_blocks < 65535 ? row_blocks : 65535)),
                  dim3(static_cast<unsigned>(across), static_cast<unsigned>(down)), 0, stream},
                 gather_rows_thread_per_word_kernel<W>, static_cast<W*>(a.y),
                 static_cast<const W*>(a.table), a.indices, a.rows, words, a.table_rows,
                 y_bytes / kSize, table_bytes / kSize);
  };
  if (all % 16 == 0) return run.template operator()<uint4>();
  switch (size) {
    case 8: return run.template operator()<uint2>();
    case 4: return run.template operator()<std::uint32_t>();
    case 2: return run.template operator()<std::uint16_t>();
    default: return run.template operator()<std::uint8_t>();
  }
}

inline void scatter_rows_launch(const Context& context, const ScatterRowsArgs& a) {
  using namespace SIMT_NS;
  const auto stream = static_cast<cudaStream_t>(context.stream);
  dispatch_float(a.dtype, "scatter_rows", [&]<class T>() {
    using A = accumulator_t<T>;
    const std::int64_t tiles = (a.rows + kScatterTile - 1) / kScatterTile,
                       blocks = (a.rows + kScatterKeys - 1) / kScatterKeys;
    const std::size_t sums = static_cast<std::size_t>(2 * tiles * a.columns) * sizeof(A);
    char* const scratch = static_cast<char*>(
        context.scratch->get(sums + static_cast<std::size_t>(2 * a.rows + kScatterDigits * blocks) *
                                        sizeof(std::int32_t)));
    std::int32_t* to = reinterpret_cast<std::int32_t*>(scratch + sums);
    std::int32_t* spare = to + a.rows;
    std::int32_t* const counts = to + 2 * a.rows;
    const std::int32_t* order = nullptr;
    const LaunchConfig sort{"scatter_rows", static_cast<unsigned>(blocks), kScatterThreads, 0,
                            stream};
    for (int pass = 0; pass < scatter_passes(a.table_rows); ++pass) {
      simt::launch(sort, scatter_rows_count_kernel, counts, order, a.indices, a.rows, a.table_rows,
                   8 * pass);
      simt::launch({"scatter_rows", 1, 1024, 0, stream}, scatter_rows_scan_one_block_kernel, counts,
                   kScatterDigits * blocks);
      simt::launch(sort, scatter_rows_place_kernel, to, order, a.indices, counts, a.rows,
                   a.table_rows, 8 * pass);
      order = to;
      std::swap(to, spare);
    }
    const ScatterParams<T> p{static_cast<T*>(a.table),
                             static_cast<const T*>(a.x),
                             a.indices,
                             order,
                             reinterpret_cast<A*>(scratch),
                             a.rows,
                             a.columns,
                             a.table_rows,
                             a.table_pitch,
                             a.x_pitch};
    const auto run = [&](auto width) {
      constexpr int kW = decltype(width)::value;
      const std::int64_t most = tiles < 65535 ? tiles : 65535;
      const dim3 grid(static_cast<unsigned>((a.columns + 128 * kW - 1) / (128 * kW)),
                      static_cast<unsigned>(most),
                      static_cast<unsigned>((tiles + most - 1) / most));
      simt::launch({"scatter_rows", grid, 128, 0, stream},
                   scatter_rows_block_per_tile_kernel<T, kW>, p);
      if (tiles > 1)
        simt::launch({"scatter_rows", grid, 128, 0, stream}, scatter_rows_join_tiles_kernel<T, kW>,
                     p);
    };
    constexpr int kPack = 16 / static_cast<int>(sizeof(T));
    if (packs_aligned<kPack>(p.table, p.x) && a.columns % kPack == 0 &&
        a.table_pitch % kPack == 0 && a.x_pitch % kPack == 0)
      run(std::integral_constant<int, kPack>{});
    else
      run(std::integral_constant<int, 1>{});
  });
}

}  // namespace retort::kernels
