// CUDA kernels of attention and their launch configuration.
//
// Note [Short sequences first]
//   A block takes one head of one sequence. Up to `held` rows it keeps all keys and values, in
//   backward also all queries and their gradients, in shared memory: each is read once. Longer
//   sequences go through the same shared memory in pieces. Blocks of 32 keys are met in the same
//   order either way, with a running maximum, so that the bits do not depend on it.
#pragma once
#include "kernels/attention/attention_backward.cuh"

namespace retort::kernels {
namespace SIMT_NS {

/// How a launch cuts the work: rows held in shared memory, and the sizes that follow.
struct AttentionCut {
  int own, other;  // rows of a block's own tensors, and of those that stream by
  int warps;
  std::size_t shared;
};

// Keys of a forward block: 8 kBlockTiles.
inline constexpr int kForwardTiles = 4;

// A warp takes 16 queries at a time, over all keys; blockIdx.z strides over groups of 16 queries
// a warp. The block behind the last sequence zeroes rows of no sequence.
// Shared: (2 held + 16 warps) rows. Launch: grid (sequences + 1, heads, any), block 32 warps.
template <class T, int kD>
__global__ void __launch_bounds__(kAttentionThreads, 1)
    attention_block_per_head_kernel(const AttentionArgs a, int held, bool whole) {
  using Rows = HeadRows<T, kD>;
  constexpr int kStride = Rows::kStride, kN = kForwardTiles, kKeys = 8 * kN;
  SIMT_DYNAMIC_SHARED(unsigned char, s_memory);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x),
            warp = thread / 32, warps = threads / 32, lane = lane_of_thread(),
            head = static_cast<int>(blockIdx.y);
  T* const out = static_cast<T*>(a.out);
  float* const lse = static_cast<float*>(a.lse);
  if (blockIdx.x == a.sequences) {
    if (blockIdx.z != 0) return;
    zero_rows_of_no_sequence<T>(a, out, a.out_pitch, std::int64_t{head} * kD, kD);
    if (lse != nullptr) zero_rows_of_no_sequence<float>(a, lse + head * a.rows, 1, 0, 1);
    return;
  }
  const HeadPlace at = head_place(a, blockIdx.x, head);
  T* const s_k = reinterpret_cast<T*>(s_memory);
  T* const s_v = s_k + held * kStride;
  T* const s_q = s_v + held * kStride + warp * 16 * kStride;
  const std::int64_t column = std::int64_t{head} * kD;
  const T* const q = static_cast<const T*>(a.q) + at.begin * a.q_pitch + column;
  const T* const k = static_cast<const T*>(a.k) + at.begin * a.k_pitch + column;
  const T* const v = static_cast<const T*>(a.v) + at.begin * a.v_pitch + column;
  const float kept = static_cast<float>(1 / (1 - a.drop.p));
  bool loaded = false;
  for (int group = static_cast<int>(blockIdx.z); group * warps * 16 < at.rows;
       group += static_cast<int>(gridDim.z)) {
    const int q0 = (group * warps + warp) * 16, rows = at.rows - q0 < 16 ? at.rows - q0 : 16;
    __syncwarp();
    if (rows > 0) load_rows<T, kD>(s_q, q + q0 * a.q_pitch, a.q_pitch, rows, 16, whole, lane, 32);
    cp_async_commit();
    float top[2] = {-3.402823466e38f, -3.402823466e38f}, sum[2] = {0.0f, 0.0f};
    float acc[Rows::kTiles][4];
#pragma unroll
    for (int d = 0; d < Rows::kTiles; ++d)
#pragma unroll
      for (int e = 0; e < 4; ++e) acc[d][e] = 0.0f;
    // Keys that some query of the group sees.
    const int last = (group + 1) * warps * 16, seen = a.causal && last < at.rows ? last : at.rows;
    for (int first = 0; first < seen; first += held) {
      const int here = at.rows - first < held ? at.rows - first : held;
      if (!loaded) {
        __syncthreads();  // the piece before has been read
        const int padded = (here + kAttentionRound - 1) / kAttentionRound * kAttentionRound;
        load_rows<T, kD>(s_k, k + first * a.k_pitch, a.k_pitch, here, padded, whole, thread,
                         threads);
        load_rows<T, kD>(s_v, v + first * a.v_pitch, a.v_pitch, here, padded, whole, thread,
                         threads);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        loaded = at.rows <= held;
      } else {
        cp_async_wait<0>();
        __syncwarp();
      }
      if (rows <= 0) continue;
      for (int key0 = 0; key0 < here; key0 += kKeys) {
        if (a.causal && first + key0 > q0 + 15) break;
        float z[kN][4];
#pragma unroll
        for (int j = 0; j < kN; ++j)
#pragma unroll
          for (int e = 0; e < 4; ++e) z[j][e] = 0.0f;
        dot_rows<T, kD, kN>(z, s_q, s_k + key0 * kStride);
        float higher[2] = {top[0], top[1]};
#pragma unroll
        for (int j = 0; j < kN; ++j)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int row = q0 + lane / 4 + (e >> 1) * 8,
                      key = first + key0 + j * 8 + lane % 4 * 2 + (e & 1);
            const bool masked = key >= at.rows || (a.causal && key > row);
            z[j][e] = masked ? float_from_bits(0xff800000u) : z[j][e] * at.scale2;
            higher[e >> 1] = fmaxf(higher[e >> 1], z[j][e]);
          }
        float factor[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          higher[i] = quad_max(higher[i]);
          factor[i] = exp2_approx(top[i] - higher[i]);
          top[i] = higher[i];
          sum[i] *= factor[i];
        }
#pragma unroll
        for (int d = 0; d < Rows::kTiles; ++d)
#pragma unroll
          for (int e = 0; e < 4; ++e) acc[d][e] *= factor[e >> 1];
#pragma unroll
        for (int j = 0; j < kN; ++j)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            z[j][e] = exp2_approx(z[j][e] - top[e >> 1]);
            sum[e >> 1] += z[j][e];
          }
        if (at.drops) {
#pragma unroll 1
          for (int i = 0; i < kN * 4; ++i) {
            const int j = i >> 2, e = i & 3;
            const int row = q0 + lane / 4 + (e >> 1) * 8,
                      key = first + key0 + j * 8 + lane % 4 * 2 + (e & 1);
            const bool kept_here = keeps(at, row, key);
#pragma unroll
            for (int n = 0; n < kN * 4; ++n)  // a fragment has no run-time index
              if (n == i && !kept_here) z[n >> 2][n & 3] = 0.0f;
          }
        }
        times_rows<T, kD, kN>(acc, z, s_v + key0 * kStride);
      }
    }
    if (rows <= 0) continue;
    float inverse[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float total = quad_sum(sum[i]);
      inverse[i] = total == 0.0f ? 0.0f : kept / total;
      const int row = lane / 4 + i * 8;
      if (lse != nullptr && lane % 4 == 0 && row < rows)
        lse[head * a.rows + at.begin + q0 + row] = total == 0.0f
                                                       ? float_from_bits(0xff800000u)
                                                       : top[i] * 0.6931471805599453f + logf(total);
    }
    store_tile<T, kD>(acc, inverse[0], inverse[1], s_q,
                      out + (at.begin + q0) * a.out_pitch + column, a.out_pitch, rows, whole);
  }
}

}  // namespace SIMT_NS

/// True where heads of such rows are read and written 16 bytes at a time.
inline bool attention_is_whole(DType dtype, const void* p, std::int64_t pitch) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0 &&
         pitch * static_cast<std::int64_t>(size_of(dtype)) % 16 == 0;
}

/// From the hint: all rows where the shared memory has room for them, else a block's own rows and
/// pieces of the others; fewer warps where rows are long.
inline SIMT_NS::AttentionCut attention_cut(std::int64_t longest, std::size_t row_bytes,
                                           bool backward, std::size_t shared) {
  using namespace SIMT_NS;
  const auto bytes_of_row = static_cast<std::int64_t>(row_bytes),
             bytes = static_cast<std::int64_t>(shared),
             pair = 2 * bytes_of_row + (backward ? 8 : 0);  // with a query's statistics
  const std::int64_t wanted = (longest + kAttentionRound - 1) / kAttentionRound * kAttentionRound;
  const auto whole_rounds = [](std::int64_t rows) {
    return rows / kAttentionRound * kAttentionRound;
  };
  const int most_warps = wanted <= 32 ? 2 : wanted <= 64 ? 4 : 8;
  for (const bool whole : {true, false})
    for (int warps = most_warps; warps >= 2; warps /= 2) {
      const std::int64_t results = warps * 16 * bytes_of_row;
      const auto cut = [&](std::int64_t own, std::int64_t other) {
        return AttentionCut{static_cast<int>(own), static_cast<int>(other), warps,
                            static_cast<std::size_t>(results + (own + other) * pair)};
      };
      const std::int64_t rows = whole_rounds((bytes - results) / pair);  // own and others
      // Own rows for every warp, so that a sequence beyond the hint goes by pieces.
      const std::int64_t least = backward ? warps * 16 : 0,
                         own = backward && wanted > least ? wanted : least;
      if (whole && own + wanted <= rows) return cut(own, wanted);
      if (!whole && rows - least >= kAttentionRound) return cut(least, rows - least);
    }
  fail(ErrorCode::kDevice, "[attention] expected shared memory for 32 rows of ", row_bytes,
       " bytes, got ", shared);
}

/// Blocks along z: several take one head where there are few heads for a large chip.
inline unsigned attention_parts(std::int64_t heads, std::int64_t groups) {
  constexpr std::int64_t kEnough = 264;  // two for each multiprocessor of the largest chip
  const std::int64_t parts = (kEnough + heads - 1) / heads;
  return static_cast<unsigned>(parts < 1 ? 1 : parts < groups ? parts : groups < 1 ? 1 : groups);
}

template <class Args>
simt::LaunchConfig attention_config(const char* name, const Context& context, const Args& a,
                                    std::int64_t longest, const SIMT_NS::AttentionCut& cut,
                                    int tasks_per_tile) {
  using namespace SIMT_NS;
  RETORT_CHECK(a.heads <= 65535 && a.sequences < (std::int64_t{1} << 31) - 1, "[", name,
               "] expected at most 65535 heads and fewer than 2^31 - 1 sequences, got ", a.heads,
               ", ", a.sequences);
  const std::int64_t heads = (a.sequences > 0 ? a.sequences : 1) * a.heads,
                     tasks = (longest + 15) / 16 * tasks_per_tile;
  return {name,
          dim3(static_cast<unsigned>(a.sequences + 1), static_cast<unsigned>(a.heads),
               attention_parts(heads, (tasks + cut.warps - 1) / cut.warps)),
          static_cast<unsigned>(32 * cut.warps), cut.shared,
          static_cast<cudaStream_t>(context.stream)};
}

template <class Args>
std::int64_t attention_longest(const Args& a) {
  return a.longest > 0 && a.longest < a.rows ? a.longest : a.rows;
}

/// For one type and head size; `shared`: bytes of shared memory that a block may take.
template <class T, int kD>
void attention_launch_of(const Context& context, const AttentionArgs& a,
                         std::size_t shared = SIMT_NS::kAttentionShared) {
  using namespace SIMT_NS;
  const bool whole = attention_is_whole(a.dtype, a.q, a.q_pitch) &&
                     attention_is_whole(a.dtype, a.k, a.k_pitch) &&
                     attention_is_whole(a.dtype, a.v, a.v_pitch) &&
                     attention_is_whole(a.dtype, a.out, a.out_pitch);
  const std::int64_t longest = attention_longest(a);
  const AttentionCut cut =
      attention_cut(longest, sizeof(T) * HeadRows<T, kD>::kStride, false, shared);
  simt::launch(attention_config("attention", context, a, longest, cut, 1),
               attention_block_per_head_kernel<T, kD>, a, cut.other, whole);
}

template <class T, int kD>
void attention_backward_launch_of(const Context& context, const AttentionBackwardArgs& a,
                                  std::size_t shared = SIMT_NS::kAttentionShared) {
  using namespace SIMT_NS;
  const bool whole = attention_is_whole(a.dtype, a.q, a.q_pitch) &&
                     attention_is_whole(a.dtype, a.k, a.k_pitch) &&
                     attention_is_whole(a.dtype, a.v, a.v_pitch) &&
                     attention_is_whole(a.dtype, a.out, a.out_pitch) &&
                     attention_is_whole(a.dtype, a.dout, a.dout_pitch) &&
                     attention_is_whole(a.dtype, a.dq, a.dq_pitch) &&
                     attention_is_whole(a.dtype, a.dk, a.dk_pitch) &&
                     attention_is_whole(a.dtype, a.dv, a.dv_pitch);
  const std::int64_t longest = attention_longest(a);
  const AttentionCut cut =
      attention_cut(longest, sizeof(T) * HeadRows<T, kD>::kStride, true, shared);
  simt::launch(attention_config("attention_backward", context, a, longest, cut, 2),
               attention_backward_block_per_head_kernel<T, kD>, a, cut.own, cut.other, whole);
}

}  // namespace retort::kernels
