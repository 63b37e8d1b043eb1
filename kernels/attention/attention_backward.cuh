// CUDA kernel of attention's gradients.
//
// Note [Gradients without atomics]
//   A warp sums dq of 16 queries over all keys, or dk and dv of 16 keys over all queries: p and dp are
//   computed for either, which costs two products more of seven and saves every exchange between
//   warps.
#pragma once
#include "kernels/attention/attention_tile.cuh"

namespace retort::kernels {
namespace SIMT_NS {

/// A warp's 16 rows of dq (kKeys false: own rows are queries, others keys) or of dk and dv (own
/// rows are keys, others queries). s_own1, s_other1 are rows of q or k, s_own2, s_other2 of dout or
/// v. s_lse (log2, 0 for a query without mass) and s_delta belong to the queries held.
template <class T, int kD, bool kKeys>
struct GradientTile {
  using Rows = HeadRows<T, kD>;
  static constexpr int kStride = Rows::kStride;
  static constexpr int kN = kD == 128 ? 2 : 4;  // registers
  float first[Rows::kTiles][4];                 // of dq, or dk
  float second[kKeys ? Rows::kTiles : 1][4];    // of dv

  SIMT_D GradientTile() {
#pragma unroll
    for (int d = 0; d < Rows::kTiles; ++d)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        first[d][e] = 0.0f;
        if constexpr (kKeys) second[d][e] = 0.0f;
      }
  }

  // Adds what rows other0 .. other0 + others say, which lie in shared memory from 0 on.
  SIMT_D void add(const HeadPlace& at, bool causal, float kept, const T* s_own1, const T* s_own2,
                  const T* s_other1, const T* s_other2, const float* s_lse, const float* s_delta,
                  int own0, int other0, int others) {
    const int lane = lane_of_thread();
    for (int block = 0; block < others; block += 8 * kN) {
      if (causal && !kKeys && other0 + block > own0 + 15) break;
      if (causal && kKeys && other0 + block + 8 * kN <= own0) continue;
      float z[kN][4], dp[kN][4];
#pragma unroll
      for (int j = 0; j < kN; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) z[j][e] = dp[j][e] = 0.0f;
      dot_rows<T, kD, kN>(z, s_own1, s_other1 + block * kStride);
      dot_rows<T, kD, kN>(dp, s_own2, s_other2 + block * kStride);
      if (at.drops) {
#pragma unroll 1
        for (int i = 0; i < kN * 4; ++i) {
          const int own = own0 + lane / 4 + (i >> 1 & 1) * 8,
                    other = other0 + block + (i >> 2) * 8 + lane % 4 * 2 + (i & 1);
          const float m = keeps(at, kKeys ? other : own, kKeys ? own : other) ? kept : 0.0f;
#pragma unroll
          for (int n = 0; n < kN * 4; ++n)  // a fragment has no run-time index
            if (n == i) dp[n >> 2][n & 3] *= m;
        }
      }
#pragma unroll
      for (int j = 0; j < kN; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int own_row = lane / 4 + (e >> 1) * 8,
                    other_row = block + j * 8 + lane % 4 * 2 + (e & 1);
          const int own = own0 + own_row, other = other0 + other_row;
          const int held_query = kKeys ? other_row : own_row;
          const bool masked =
              own >= at.rows || other >= at.rows || (causal && (kKeys ? own > other : other > own));
          const float p =
              masked ? 0.0f
                     : exp2_approx(z[j][e] * at.scale2 - (masked ? 0.0f : s_lse[held_query]));
          z[j][e] = p;
          dp[j][e] = masked ? 0.0f : p * (dp[j][e] - s_delta[held_query]);
        }
      times_rows<T, kD, kN>(first, dp, s_other1 + block * kStride);
      if constexpr (kKeys) {
        if (at.drops) {
#pragma unroll 1
          for (int i = 0; i < kN * 4; ++i) {
            const int own = own0 + lane / 4 + (i >> 1 & 1) * 8,
                      other = other0 + block + (i >> 2) * 8 + lane % 4 * 2 + (i & 1);
            const float m = keeps(at, other, own) ? kept : 0.0f;
#pragma unroll
            for (int n = 0; n < kN * 4; ++n)
              if (n == i) z[n >> 2][n & 3] *= m;
          }
        }
        times_rows<T, kD, kN>(second, z, s_other2 + block * kStride);
      }
    }
  }
};

/// s_lse and s_delta of rows 0 .. rows held of queries query0 ..; four lanes a row.
template <class T, int kD>
SIMT_D void load_statistics(const AttentionBackwardArgs& a, const HeadPlace& at, const T* s_dout,
                            float* s_lse, float* s_delta, int query0, int rows, bool whole) {
  constexpr int kVec = HeadRows<T, kD>::kVec, kStride = HeadRows<T, kD>::kStride;
  const int quad = static_cast<int>(threadIdx.x) / 4, quads = static_cast<int>(blockDim.x) / 4;
  const T* const out =
      static_cast<const T*>(a.out) + at.begin * a.out_pitch + std::int64_t{at.head} * kD;
  for (int start = 0; start < rows; start += quads) {  // the same for all: the shuffles want it
    const int r = start + quad;
    float sum = 0.0f;
    if (r < rows)
      for (int c = static_cast<int>(threadIdx.x) % 4 * kVec; c < kD; c += 4 * kVec) {
        const T* const from = out + (query0 + r) * a.out_pitch + c;
        float x[kVec], y[kVec];
        unpack(s_dout + r * kStride + c, y);
        if (whole) {
          unpack(from, x);
        } else {
#pragma unroll
          for (int i = 0; i < kVec; ++i) x[i] = to_float(from[i]);
        }
#pragma unroll
        for (int i = 0; i < kVec; ++i) sum += x[i] * y[i];
      }
    sum = quad_sum(sum);
    if (r < rows && threadIdx.x % 4 == 0) {
      const float lse = static_cast<const float*>(a.lse)[at.head * a.rows + at.begin + query0 + r];
      s_lse[r] = lse == float_from_bits(0xff800000u) ? 0.0f : lse * kAttentionLog2E;
      s_delta[r] = sum;
    }
  }
}

// Tasks: dq of 16 queries, or dk and dv of 16 keys, each by a warp; blockIdx.z strides over them. A
// sequence of at most `held` rows is loaded whole. A longer one is a group of tasks of one kind at a
// time, one a warp, whose own rows are loaded while the others stream by. The block behind the last
// sequence zeroes rows of no sequence.
// Shared: (2 own + 2 other + 16 warps) rows and 2 max(own, other) floats.
// Launch: grid (sequences + 1, heads, any), block 32 warps; own >= 16 warps or >= the longest.
template <class T, int kD>
__global__ void __launch_bounds__(kAttentionThreads, 1)
    attention_backward_block_per_head_kernel(const AttentionBackwardArgs a, int own_rows,
                                             int other_rows, bool whole) {
  using Rows = HeadRows<T, kD>;
  constexpr int kStride = Rows::kStride;
  SIMT_DYNAMIC_SHARED(unsigned char, s_memory);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x),
            warp = thread / 32, warps = threads / 32, head = static_cast<int>(blockIdx.y);
  const std::int64_t column = std::int64_t{head} * kD;
  T *const dq = static_cast<T*>(a.dq), *const dk = static_cast<T*>(a.dk),
           *const dv = static_cast<T*>(a.dv);
  if (blockIdx.x == a.sequences) {
    if (blockIdx.z != 0) return;
    zero_rows_of_no_sequence<T>(a, dq, a.dq_pitch, column, kD);
    zero_rows_of_no_sequence<T>(a, dk, a.dk_pitch, column, kD);
    zero_rows_of_no_sequence<T>(a, dv, a.dv_pitch, column, kD);
    return;
  }
  const HeadPlace at = head_place(a, blockIdx.x, head);
  if (at.rows == 0) return;
  const int most = own_rows > other_rows ? own_rows : other_rows;
  float* const s_lse = reinterpret_cast<float*>(s_memory);
  float* const s_delta = s_lse + most;
  T* const s_own1 = reinterpret_cast<T*>(s_delta + most);
  T* const s_own2 = s_own1 + own_rows * kStride;
  T* const s_other1 = s_own2 + own_rows * kStride;
  T* const s_other2 = s_other1 + other_rows * kStride;
  T* const s_result = s_other2 + other_rows * kStride + warp * 16 * kStride;
  const T* const q = static_cast<const T*>(a.q) + at.begin * a.q_pitch + column;
  const T* const k = static_cast<const T*>(a.k) + at.begin * a.k_pitch + column;
  const T* const v = static_cast<const T*>(a.v) + at.begin * a.v_pitch + column;
  const T* const dout = static_cast<const T*>(a.dout) + at.begin * a.dout_pitch + column;
  const float scale = at.scale2 / kAttentionLog2E, kept = static_cast<float>(1 / (1 - a.drop.p));
  const auto load = [&](T* s1, T* s2, bool queries, int first, int count) {
    const int padded = (count + kAttentionRound - 1) / kAttentionRound * kAttentionRound;
    const std::int64_t p1 = queries ? a.q_pitch : a.k_pitch,
                       p2 = queries ? a.dout_pitch : a.v_pitch;
    load_rows<T, kD>(s1, (queries ? q : k) + first * p1, p1, count, padded, whole, thread, threads);
    load_rows<T, kD>(s2, (queries ? dout : v) + first * p2, p2, count, padded, whole, thread,
                     threads);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
  };
  const auto store_queries = [&](const GradientTile<T, kD, false>& tile, int own0) {
    const int rows = at.rows - own0 < 16 ? at.rows - own0 : 16;
    store_tile<T, kD>(tile.first, scale, scale, s_result,
                      dq + (at.begin + own0) * a.dq_pitch + column, a.dq_pitch, rows, whole);
  };
  const auto store_keys = [&](const GradientTile<T, kD, true>& tile, int own0) {
    const int rows = at.rows - own0 < 16 ? at.rows - own0 : 16;
    store_tile<T, kD>(tile.first, scale, scale, s_result,
                      dk + (at.begin + own0) * a.dk_pitch + column, a.dk_pitch, rows, whole);
    store_tile<T, kD>(tile.second, 1.0f, 1.0f, s_result,
                      dv + (at.begin + own0) * a.dv_pitch + column, a.dv_pitch, rows, whole);
  };
  const int tiles = (at.rows + 15) / 16;
  if (at.rows <= own_rows && at.rows <= other_rows) {
    load(s_own1, s_own2, true, 0, at.rows);
    load(s_other1, s_other2, false, 0, at.rows);
    load_statistics<T, kD>(a, at, s_own2, s_lse, s_delta, 0, at.rows, whole);
    __syncthreads();
    for (int task = static_cast<int>(blockIdx.z) * warps + warp; task < 2 * tiles;
         task += static_cast<int>(gridDim.z) * warps) {
      const int own0 = task % tiles * 16;
      if (task < tiles) {
        GradientTile<T, kD, false> tile;
        tile.add(at, a.causal, kept, s_own1 + own0 * kStride, s_own2 + own0 * kStride, s_other1,
                 s_other2, s_lse + own0, s_delta + own0, own0, 0, at.rows);
        store_queries(tile, own0);
      } else {
        GradientTile<T, kD, true> tile;
        tile.add(at, a.causal, kept, s_other1 + own0 * kStride, s_other2 + own0 * kStride, s_own1,
                 s_own2, s_lse, s_delta, own0, 0, at.rows);
        store_keys(tile, own0);
      }
    }
    return;
  }
  const int groups = (tiles + warps - 1) / warps;
  for (int unit = static_cast<int>(blockIdx.z); unit < 2 * groups;
       unit += static_cast<int>(gridDim.z)) {
    const bool keys = unit >= groups;
    const int group0 = unit % groups * warps * 16, own0 = group0 + warp * 16,
              group_rows = at.rows - group0 < warps * 16 ? at.rows - group0 : warps * 16;
    __syncthreads();  // what was there has been read
    load(s_own1, s_own2, !keys, group0, group_rows);
    if (!keys) {
      load_statistics<T, kD>(a, at, s_own2, s_lse, s_delta, group0, group_rows, whole);
      __syncthreads();
      GradientTile<T, kD, false> tile;
      for (int first = 0; first < at.rows; first += other_rows) {
        const int here = at.rows - first < other_rows ? at.rows - first : other_rows;
        if (first > 0) __syncthreads();
        load(s_other1, s_other2, false, first, here);
        if (own0 < at.rows)
          tile.add(at, a.causal, kept, s_own1 + warp * 16 * kStride, s_own2 + warp * 16 * kStride,
                   s_other1, s_other2, s_lse + warp * 16, s_delta + warp * 16, own0, first, here);
      }
      if (own0 < at.rows) store_queries(tile, own0);
    } else {
      GradientTile<T, kD, true> tile;
      for (int first = 0; first < at.rows; first += other_rows) {
        const int here = at.rows - first < other_rows ? at.rows - first : other_rows;
        if (first > 0) __syncthreads();
        load(s_other1, s_other2, true, first, here);
        load_statistics<T, kD>(a, at, s_other2, s_lse, s_delta, first, here, whole);
        __syncthreads();
        if (own0 < at.rows)
          tile.add(at, a.causal, kept, s_own1 + warp * 16 * kStride, s_own2 + warp * 16 * kStride,
                   s_other1, s_other2, s_lse, s_delta, own0, first, here);
      }
      if (own0 < at.rows) store_keys(tile, own0);
    }
  }
}

}  // namespace SIMT_NS
}  // namespace retort::kernels
