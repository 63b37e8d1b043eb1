// CUDA kernel of row_rank and its launch configuration.
#pragma once
#include "kernels/common/row_io.cuh"
#include "kernels/row_rank/row_rank.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

inline constexpr int kRankWarpClasses = 1024;  // up to here one warp takes a row, else a block
inline constexpr int kRankBlock = 256;

// One warp (four rows a block) or one block per row; chunk c of 16 bytes belongs to thread
// c mod kThreads.
// Shared: an int a warp where a block takes the row. Launch: any rows.
template <class T, int kThreads>
__global__ void __launch_bounds__(kThreads == 32 ? 128 : kThreads)
    row_rank_row_kernel(const RowRankArgs a) {
  constexpr int kVec = RowAccess<T>::kVec;
  SIMT_SHARED(int, s_before, [kThreads / 32]);
  const std::int64_t n = row_of_thread<kThreads>();
  if (n >= a.rows) return;
  const int rank = rank_in_row<kThreads>();
  const int classes = static_cast<int>(a.classes), target = a.targets[n];
  const T* const s = static_cast<const T*>(a.logits) + n * a.pitch;
  const bool ignored = target == a.ignore_index, inside = target >= 0 && target < classes;
  const float mine = !ignored && inside ? static_cast<float>(to_float(s[target])) : 0.0f;
  int before = classes;
  if (!ignored && inside && mine == mine) {
    before = 0;
    const int first = -phase_of(s), chunks = (classes - first + kVec - 1) / kVec;
    for (int c = rank; c < chunks; c += kThreads) {
      const int at = first + c * kVec;
      float x[kVec];
      load_chunk(s, at, classes, true, x);
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        const int v = at + j;
        // A NaN is neither less nor equal.
        const bool ahead = v < target ? !(x[j] < mine) : v > target && !(x[j] <= mine);
        before += v >= 0 && v < classes && ahead;
      }
    }
    before = __reduce_add_sync(~0u, before);
    if constexpr (kThreads > 32) {
      if (threadIdx.x % 32 == 0) s_before[threadIdx.x / 32] = before;
      __syncthreads();
      before = 0;
      for (int w = 0; w < kThreads / 32; ++w) before += s_before[w];
    }
  }
  if (rank == 0) a.rank[n] = ignored ? -1 : before;
}

}  // namespace SIMT_NS

inline void row_rank_launch(const Context& context, const RowRankArgs& a) {
  using namespace SIMT_NS;
  RETORT_CHECK(a.dtype == DType::kF32 || a.dtype == DType::kBF16,
               "[row_rank] expected f32 or bf16 on cuda, got ", name_of(a.dtype));
  const auto run = [&]<class T>() {
    const bool warp = a.classes <= kRankWarpClasses;
    simt::launch({"row_rank", static_cast<unsigned>(warp ? (a.rows + 3) / 4 : a.rows),
                  warp ? 128u : static_cast<unsigned>(kRankBlock), 0,
                  static_cast<cudaStream_t>(context.stream)},
                 warp ? row_rank_row_kernel<T, 32> : row_rank_row_kernel<T, kRankBlock>, a);
  };
  if (a.dtype == DType::kF32)
    run.template operator()<float>();
  else
    run.template operator()<bf16>();
}

}  // namespace retort::kernels
