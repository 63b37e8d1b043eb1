// What the attention kernels share: rows of a head in shared memory, and a warp's products of them,
// on tensor cores (bf16) or by fused multiply-adds (f32).
//
// Note [Fragments of a warp]
//   A warp's result of 16 rows by 8 n columns is float[n][4], spread as mma.m16n8k16 has it: lane l
//   holds rows l / 4 (elements 0, 1) and l / 4 + 8 (elements 2, 3), columns 2 (l % 4) and one more
//   of every eight. f32 is spread likewise, so both types are one kernel. A row's columns lie in
//   four neighbouring lanes.
//
// Note [Rows in shared memory]
//   Rows of a head are 16 bytes longer than they need be: eight of them at one depth fall on the
//   eight 16-byte groups of the 32 banks, for ldmatrix and for 16-byte loads. Of bf16 a row has at
//   least the 16 elements that an mma sums; behind the head's they are 0.
#pragma once
#include "kernels/attention/attention.h"
#include "kernels/common/row_io.cuh"
#include "kernels/simt/tensor_core.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

inline constexpr int kAttentionThreads = 256;
inline constexpr int kAttentionRound = 32;                  // rows are held in so many
inline constexpr std::size_t kAttentionShared = 160 << 10;  // what every chip since sm_80 has

template <class T, int kD>
struct HeadRows {
  static constexpr int kVec = RowAccess<T>::kVec;
  static constexpr int kDepth = kVec == 8 && kD < 16 ? 16 : kD;
  static constexpr int kStride = kDepth + kVec;
  static constexpr int kTiles = kDepth / 8;  // of columns, in a fragment
};

SIMT_D int lane_of_thread() { return static_cast<int>(threadIdx.x) & 31; }

/// Rows 0 .. padded of a head into shared memory, 0 from `rows` on, by threads `thread`,
/// thread + threads, ... Asynchronous where `whole` (16-byte loads are allowed): cp_async_commit
/// and cp_async_wait follow.
template <class T, int kD>
SIMT_D void load_rows(T* s, const T* g, std::int64_t pitch, int rows, int padded, bool whole,
                      int thread, int threads) {
  using Rows = HeadRows<T, kD>;
  constexpr int kVec = Rows::kVec, kChunks = Rows::kDepth / kVec;
  for (int i = thread; i < padded * kChunks; i += threads) {
    const int r = i / kChunks, c = i % kChunks * kVec;
    T* const to = s + r * Rows::kStride + c;
    const bool inside = r < rows && c < kD;
    const T* const from = inside ? g + r * pitch + c : g;
    if (whole) {
      cp_async16(to, from, inside ? 16 : 0);
    } else {
#pragma unroll
      for (int k = 0; k < kVec; ++k) to[k] = inside ? from[k] : from_float<T>(0.0f);
    }
  }
}

/// acc (16, 8 kN) += a b^T: a 16 rows, b 8 kN rows.
template <class T, int kD, int kN>
SIMT_D void dot_rows(float (&acc)[kN][4], const T* s_a, const T* s_b) {
  constexpr int kStride = HeadRows<T, kD>::kStride;
  const int lane = lane_of_thread();
  if constexpr (sizeof(T) == 2) {
    const T* const a_row = s_a + (lane & 15) * kStride + (lane >> 4) * 8;
    const T* const b_row = s_b + ((lane & 7) + (lane >> 4 << 3)) * kStride + (lane >> 3 & 1) * 8;
#pragma unroll
    for (int k = 0; k < HeadRows<T, kD>::kDepth; k += 16) {
      std::uint32_t a[4];
      ldmatrix_x4(a, a_row + k);
#pragma unroll
      for (int j = 0; j < kN; j += 2) {
        std::uint32_t b[4];
        ldmatrix_x4(b, b_row + j * 8 * kStride + k);
        mma_bf16_16x8x16(acc[j], a, b[0], b[1]);
        mma_bf16_16x8x16(acc[j + 1], a, b[2], b[3]);
      }
    }
  } else {
    const T* const a_row = s_a + (lane / 4) * kStride;
    const T* const b_row = s_b + (lane % 4 * 2) * kStride;
#pragma unroll 2
    for (int k = 0; k < kD; k += 4) {
      const float4 a0 = load_shared16(a_row + k), a1 = load_shared16(a_row + 8 * kStride + k);
#pragma unroll
      for (int j = 0; j < kN; ++j) {
        const float4 b0 = load_shared16(b_row + j * 8 * kStride + k),
                     b1 = load_shared16(b_row + (j * 8 + 1) * kStride + k);
        acc[j][0] += a0.x * b0.x + a0.y * b0.y + a0.z * b0.z + a0.w * b0.w;
        acc[j][1] += a0.x * b1.x + a0.y * b1.y + a0.z * b1.z + a0.w * b1.w;
        acc[j][2] += a1.x * b0.x + a1.y * b0.y + a1.z * b0.z + a1.w * b0.w;
        acc[j][3] += a1.x * b1.x + a1.y * b1.y + a1.z * b1.z + a1.w * b1.w;
      }
    }
  }
}

/// out (16, depth) += p b: p (16, 8 kN) as a fragment, b 8 kN rows. bf16: p is rounded.
template <class T, int kD, int kN>
SIMT_D void times_rows(float (&out)[HeadRows<T, kD>::kTiles][4], const float (&p)[kN][4],
                       const T* s_b) {
  constexpr int kStride = HeadRows<T, kD>::kStride, kTiles = HeadRows<T, kD>::kTiles;
  const int lane = lane_of_thread();
  if constexpr (sizeof(T) == 2) {
    const T* const b_row = s_b + (lane & 15) * kStride + (lane >> 4) * 8;
#pragma unroll
    for (int j = 0; j < kN; j += 2) {
      const std::uint32_t a[4] = {pack_bf16(p[j][0], p[j][1]), pack_bf16(p[j][2], p[j][3]),
                                  pack_bf16(p[j + 1][0], p[j + 1][1]),
                                  pack_bf16(p[j + 1][2], p[j + 1][3])};
#pragma unroll
      for (int d = 0; d < kTiles; d += 2) {
        std::uint32_t b[4];
        ldmatrix_x4_trans(b, b_row + j * 8 * kStride + d * 8);
        mma_bf16_16x8x16(out[d], a, b[0], b[1]);
        mma_bf16_16x8x16(out[d + 1], a, b[2], b[3]);
      }
    }
  } else {
    const T* const b_row = s_b + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < kN; ++j)
#pragma unroll
      for (int k = 0; k < 8; ++k) {  // the row's element k lies in lane k / 2 of its four
        const int from = (lane & ~3) | k >> 1;
        const float p0 = __shfl_sync(~0u, p[j][k & 1], from),
                    p1 = __shfl_sync(~0u, p[j][2 + (k & 1)], from);
#pragma unroll
        for (int d = 0; d < kTiles; ++d) {
          const float2 b = *reinterpret_cast<const float2*>(b_row + (j * 8 + k) * kStride + d * 8);
          out[d][0] += p0 * b.x;
          out[d][1] += p0 * b.y;
          out[d][2] += p1 * b.x;
          out[d][3] += p1 * b.y;
        }
      }
  }
}

/// Rows 0 .. rows of a warp's 16 to global memory, the upper half times f0, the lower times f1;
/// through 16 rows of shared memory that are the warp's own.
template <class T, int kD>
SIMT_D void store_tile(const float (&out)[HeadRows<T, kD>::kTiles][4], float f0, float f1, T* s,
                       T* g, std::int64_t pitch, int rows, bool whole) {
  using Rows = HeadRows<T, kD>;
  constexpr int kVec = Rows::kVec, kChunks = kD / kVec;
  const int lane = lane_of_thread();
  __syncwarp();  // what was there has been read
#pragma unroll
  for (int d = 0; d < kD / 8; ++d) {
    T* const to = s + lane / 4 * Rows::kStride + d * 8 + lane % 4 * 2;
    to[0] = from_float<T>(out[d][0] * f0);
    to[1] = from_float<T>(out[d][1] * f0);
    to[8 * Rows::kStride] = from_float<T>(out[d][2] * f1);
    to[8 * Rows::kStride + 1] = from_float<T>(out[d][3] * f1);
  }
  __syncwarp();
  for (int i = lane; i < rows * kChunks; i += 32) {
    const int r = i / kChunks, c = i % kChunks * kVec;
    const T* const from = s + r * Rows::kStride + c;
    T* const to = g + r * pitch + c;
    if (whole) {
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
    } else {
#pragma unroll
      for (int k = 0; k < kVec; ++k) to[k] = from[k];
    }
  }
}

/// The sum or maximum over the four lanes that share a row.
SIMT_D float quad_sum(float v) {
  v += __shfl_xor_sync(~0u, v, 1);
  return v + __shfl_xor_sync(~0u, v, 2);
}
SIMT_D float quad_max(float v) {
  v = fmaxf(v, __shfl_xor_sync(~0u, v, 1));
  return fmaxf(v, __shfl_xor_sync(~0u, v, 2));
}

inline constexpr float kAttentionLog2E = 1.4426950408889634f;

/// A head of a sequence: its rows within [0, N), its columns, its dropout.
struct HeadPlace {
  std::int64_t begin;
  int rows, head;
  float scale2;  // log2(e) / sqrt(D): exponentials are powers of 2
  DropoutKey key;
  std::uint32_t sample;
  bool drops;
};
template <class Args>
SIMT_D HeadPlace head_place(const Args& a, std::int64_t s, int head) {
  std::int64_t begin = a.starts[s], end = a.starts[s + 1];
  begin = begin < 0 ? 0 : begin > a.rows ? a.rows : begin;
  end = end < begin ? begin : end > a.rows ? a.rows : end;
  HeadPlace p;
  p.begin = begin;
  p.rows = static_cast<int>(end - begin);
  p.head = head;
  p.scale2 = kAttentionLog2E / sqrtf(static_cast<float>(a.head_size));
  p.drops = a.drop.p > 0;
  p.key = attention_key(a.drop, head);
  p.sample = p.drops && p.rows > 0 ? attention_sample(a.drop, s, begin) : 0u;
  return p;
}

SIMT_D bool keeps(const HeadPlace& p, int query, int key) {
  const Philox4 words = attention_words(p.key, p.sample, static_cast<std::uint32_t>(query),
                                        static_cast<std::uint32_t>(key / kDropoutBlock));
  const int k = key % kDropoutBlock;
  const std::uint32_t word = k == 0   ? words.v[0]
                             : k == 1 ? words.v[1]
                             : k == 2 ? words.v[2]
                                      : words.v[3];
  return word >= p.key.threshold;
}

/// Zero rows before and behind all sequences: what the block behind the last sequence does.
template <class T, class Args>
SIMT_D void zero_rows_of_no_sequence(const Args& a, T* to, std::int64_t pitch, std::int64_t first,
                                     std::int64_t columns) {
  std::int64_t before = 0, behind = 0;
  if (a.sequences > 0) {
    before = a.starts[0] < 0 ? 0 : a.starts[0] < a.rows ? a.starts[0] : a.rows;
    behind = before;
    for (std::int64_t s = 0; s < a.sequences; ++s) {  // where starts descends: as head_place has it
      const std::int64_t end = a.starts[s + 1] < a.rows ? a.starts[s + 1] : a.rows;
      behind = end > behind ? end : behind;
    }
  }
  for (std::int64_t i = threadIdx.x; i < a.rows * columns; i += blockDim.x) {
    const std::int64_t r = i / columns;
    if (r < before || r >= behind) to[r * pitch + first + i % columns] = from_float<T>(0.0f);
  }
}

}  // namespace SIMT_NS
}  // namespace retort::kernels
