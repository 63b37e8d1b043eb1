// CUDA kernels of embedding and their launch configuration.
#pragma once
#include <type_traits>

#include "kernels/embedding/embedding.h"
#include "kernels/simt/pack.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

inline constexpr int kEmbeddingThreads = 128;

// One warp per row of y, its threads over packs of kWidth columns; every thread finds the row's
// sequence (one address for the warp).
// Shared: none. Launch: any grid; kWidth divides columns and pitches, tables aligned to 16 bytes.
template <class T, int kWidth>
__global__ void __launch_bounds__(kEmbeddingThreads)
    embedding_warp_per_row_kernel(EmbeddingArgs a) {
  using A = accumulator_t<T>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t warps = std::int64_t{gridDim.x} * (kEmbeddingThreads / 32);
  for (std::int64_t n = std::int64_t{blockIdx.x} * (kEmbeddingThreads / 32) + threadIdx.x / 32;
       n < a.rows; n += warps) {
    const EmbeddingRow row = embedding_row(a, n, embedding_sequence(a, n));
    if (a.indices && lane < 3)
      a.indices[lane * a.rows + n] = lane == 0 ? row.word : lane == 1 ? row.position : row.type;
    T* const y = static_cast<T*>(a.y) + n * a.columns;
    for (std::int64_t c = lane * kWidth; c < a.columns; c += 32 * kWidth) {
      Pack<T, kWidth> out;
      __builtin_memset(&out, row.word == kEmbeddingInvalid ? 0xff : 0, sizeof out);
      if (row.word >= 0) {
        A sum[kWidth];
        const auto w =
            load_pack<kWidth>(static_cast<const T*>(a.word) + row.word * a.word_pitch + c);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) sum[i] = A(to_float(w.v[i]));
        if (a.position) {
          const auto p = load_pack<kWidth>(static_cast<const T*>(a.position) +
                                           row.position * a.position_pitch + c);
#pragma unroll
          for (int i = 0; i < kWidth; ++i) sum[i] += A(to_float(p.v[i]));
        }
        if (a.type) {
          const auto t =
              load_pack<kWidth>(static_cast<const T*>(a.type) + row.type * a.type_pitch + c);
#pragma unroll
          for (int i = 0; i < kWidth; ++i) sum[i] += A(to_float(t.v[i]));
        }
#pragma unroll
        for (int i = 0; i < kWidth; ++i) out.v[i] = from_float<T>(sum[i]);
      }
      store_pack<kWidth>(y + c, out);
    }
  }
}

// *invalid_row = 1 + the first row of words that is kEmbeddingInvalid, or 0. One block of 1024.
// Shared: an int a warp.
static __global__ void __launch_bounds__(1024)
    embedding_first_invalid_one_block_kernel(std::int32_t* invalid_row, const std::int32_t* words,
                                             std::int64_t rows) {
  SIMT_SHARED(int, firsts, [32]);
  int first = 0x7fffffff;
  for (std::int64_t n = threadIdx.x; n < rows && first == 0x7fffffff; n += blockDim.x)
    if (words[n] == kEmbeddingInvalid) first = static_cast<int>(n);
  first = __reduce_min_sync(~0u, first);
  if (threadIdx.x % 32 == 0) firsts[threadIdx.x / 32] = first;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < 32; ++w) first = min(first, firsts[w]);
  *invalid_row = first == 0x7fffffff ? 0 : first + 1;
}

}  // namespace SIMT_NS

inline void embedding_launch(const Context& context, const EmbeddingArgs& given) {
  using namespace SIMT_NS;
  const auto stream = static_cast<cudaStream_t>(context.stream);
  EmbeddingArgs a = given;
  if (a.invalid_row && !a.indices)
    a.indices = static_cast<std::int32_t*>(
        context.scratch->get(static_cast<std::size_t>(3 * a.rows) * sizeof(std::int32_t)));
  if (a.rows > 0)
    dispatch_float(a.dtype, "embedding", [&]<class T>() {
      constexpr int kPack = 16 / static_cast<int>(sizeof(T));
      const auto divides = [](std::int64_t n) { return n % kPack == 0; };
      const bool packs =
          packs_aligned<kPack>(static_cast<const T*>(a.y), static_cast<const T*>(a.word),
                               static_cast<const T*>(a.position), static_cast<const T*>(a.type)) &&
          divides(a.columns) && divides(a.word_pitch) &&
          (!a.position || divides(a.position_pitch)) && (!a.type || divides(a.type_pitch));
      const LaunchConfig config{"embedding", blocks_for(a.rows, 1, kEmbeddingThreads / 32),
                                kEmbeddingThreads, 0, stream};
      if (packs)
        simt::launch(config, embedding_warp_per_row_kernel<T, kPack>, a);
      else
        simt::launch(config, embedding_warp_per_row_kernel<T, 1>, a);
    });
  if (a.invalid_row)
    simt::launch({"embedding", 1, 1024, 0, stream}, embedding_first_invalid_one_block_kernel,
                 a.invalid_row, a.indices, a.rows);
}

}  // namespace retort::kernels
